"""What a product asks with its API key: the address to send a user's browser to, so that a mailbox gets connected.

The answer is a ticket on our own host: it can be used once, within ten minutes, and is where the browser gets the cookie by
which it is known again when it comes back from the provider.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from domain.connection_events import Provider
from gateways.http import problems
from gateways.http.connect.consenting import issue_ticket, with_servers
from gateways.http.connect.forms import taken_out
from gateways.http.connect.parts import Connecting
from gateways.http.connect.wishes import PROVIDERS, Wish, check_set_up, provider_named
from gateways.http.operations import TEXT, declare, json_response, parameter
from gateways.http.parameters import CONNECTION_ID, USER_ID
from gateways.http.services import Services
from gateways.http.v1.bodies import Faults
from gateways.http.v1.queries import query_of
from gateways.http.v1.shapes import CONNECTION, USER
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT
from gateways.http.who import account_caller
from projections import connections, users
from projections.connections import ConnectionRow

LONGEST_HINT: Final = 320
A_URL: Final = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "format": "uri"}}}
GIVES: Final = {
    "description": "Where to send the user's browser: once, within ten minutes.",
    "content": {
        "application/json": {"schema": A_URL | {"example": {"url": "https://mail.example/connect/gmail?ticket=…"}}}
    },
}
NOT_ALLOWED: Final = (
    "`returnUrl` has to be one of `POSTLEDGER_RETURN_URLS` or below it, without a fragment, without anything that is read "
    "in two ways, and without `connectionId`, `status`, `error` or `operationId` in its query: those are added."
)
NOT_ITS_CONNECTION: Final = "`connectionId` has to be a connection of this user at this provider that is not revoked."
USER_PARAMETER: Final = parameter("userId", "query", "Whose mailbox it will be.", TEXT, USER) | {"required": True}
RETURN_PARAMETER: Final = parameter(
    "returnUrl",
    "query",
    "Where the user goes in the end; our own page where missing.",
    TEXT,
    "https://app.example/done",
)


def routes(services: Services, connecting: Connecting) -> APIRouter:
    router = APIRouter(tags=["connections"])
    starting = Starting(services, connecting)
    redirect = {"description": "To that address, where `Accept` does not name `application/json`."}
    refusals = ("invalid_request", "not_found", "provider_not_set_up", *OF_ACCOUNT)
    declare(
        router,
        "GET",
        "/v1/connect/{provider}",
        starting.provider,
        name="connectProvider",
        summary="Send a user to connect a mailbox",
        answers={200: GIVES, 302: redirect},
        refusals=refusals,
        parameters=(
            parameter("provider", "path", "Where the mailbox is.", {**TEXT, "enum": [*PROVIDERS]}, "gmail"),
            USER_PARAMETER,
            RETURN_PARAMETER,
            parameter("connectionId", "query", "The connection to renew, and no other.", TEXT, CONNECTION)
            | {"example": None},
            parameter("loginHint", "query", "The address the provider is to suggest.", TEXT, "ada@example.org"),
        ),
        security=API_KEY,
    )
    declare(
        router,
        "GET",
        "/v1/connect",
        starting.page,
        name="connectPage",
        summary="Send a user to choose a mailbox to connect",
        answers={200: GIVES, 302: redirect},
        refusals=tuple(code for code in refusals if code != "provider_not_set_up"),
        parameters=(USER_PARAMETER, RETURN_PARAMETER),
        security=API_KEY,
    )
    return router


class Starting:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services, connecting: Connecting) -> None:
        self._services = services
        self._connecting = connecting

    async def provider(self, request: Request) -> Response:
        """A ticket that leads straight to the provider's consent."""
        caller = await account_caller(self._services, request, "connections:write")
        provider, faults = provider_named(request.path_params["provider"]), Faults()
        said = query_of(request, ("userId", "returnUrl", "connectionId", "loginHint"), faults)
        taken_out(request)
        user, return_url = self._user_and_way_back(said, faults)
        hint = said.get("loginHint")
        if hint is not None and not (0 < len(hint) <= LONGEST_HINT and hint.isprintable()):
            faults.add("/query/loginHint", f"`loginHint` has to be 1 to {LONGEST_HINT} printable characters.")
        faults.refuse()
        await self._check_user(caller.owner, user)
        row = await self._renewed(caller.owner, user, provider, said.get("connectionId"))
        check_set_up(self._connecting, provider)
        wish = Wish(caller.owner, user, provider, return_url, row.connection if row else None, hint)
        return await self._ticket(request, await self._with_servers(wish, row))

    async def page(self, request: Request) -> Response:
        """A ticket that leads to a page of ours, where the user sees their mailboxes and connects more."""
        caller = await account_caller(self._services, request, "connections:write")
        faults = Faults()
        user, return_url = self._user_and_way_back(query_of(request, ("userId", "returnUrl"), faults), faults)
        faults.refuse()
        await self._check_user(caller.owner, user)
        return await self._ticket(request, Wish(caller.owner, user, return_url=return_url, on_page=True))

    def _user_and_way_back(self, said: Mapping[str, str], faults: Faults) -> tuple[str, str | None]:
        user, return_url = said.get("userId"), said.get("returnUrl")
        if user is None:
            faults.add("/query/userId", "`userId` is missing.")
        if return_url is not None and not self._connecting.return_urls.allow(return_url):
            faults.add("/query/returnUrl", NOT_ALLOWED)
        return user or "", return_url

    async def _check_user(self, owner: str, user: str) -> None:
        """Raises a Problem (404)."""
        if not USER_ID.fullmatch(user) or await users.by_id(self._services.pool, owner, user) is None:
            raise problems.not_found()

    async def _renewed(self, owner: str, user: str, provider: Provider, named: str | None) -> ConnectionRow | None:
        """The connection that is to be renewed. Raises a Problem (400)."""
        if named is None:
            return None
        row = await connections.by_id(self._services.pool, owner, named) if CONNECTION_ID.fullmatch(named) else None
        if row is None or (row.user, row.provider) != (user, provider) or row.state == "revoked":
            raise problems.invalid("/query/connectionId", NOT_ITS_CONNECTION)
        return row

    async def _with_servers(self, wish: Wish, row: ConnectionRow | None) -> Wish:
        """An `smtp` mailbox is renewed at the servers that the vault has of it. Raises a Problem (400)."""
        if wish.provider != "smtp":
            return wish
        return await with_servers(self._services, self._connecting, wish, row)

    async def _ticket(self, request: Request, wish: Wish) -> Response:
        url = await ticket_url(self._connecting, wish)
        if "application/json" in request.headers.get("accept", "").lower():
            return json_response({"url": url}, 200, dict(NO_STORE))
        return RedirectResponse(url, 302, dict(NO_STORE))


async def ticket_url(connecting: Connecting, wish: Wish) -> str:
    """The address of a new ticket for this wish."""
    ticket = await issue_ticket(connecting, wish)
    path = f"/connect/{wish.provider}" if wish.provider else "/connect"
    return f"{connecting.public_url}{path}?{urlencode({'ticket': ticket})}"
