"""The page where a user connects mailboxes, sees how each of them is, and reconnects those that need them again.

It is reached by a ticket, and then by a session of half an hour that a cookie of this browser is the key to. A form proves
by a value made of that key that it comes from the page itself; other sites know neither.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from gateways.http import problems
from gateways.http.connect.consenting import to_provider, with_servers
from gateways.http.connect.forms import form_of, taken_out
from gateways.http.connect.mailboxes_shown import Shown, shown
from gateways.http.connect.parts import Connecting
from gateways.http.connect.rendering import notice, page, redirect
from gateways.http.connect.wishes import Wish, provider_named
from gateways.http.connect.words import NAMES, NotConnected, words_for
from gateways.http.parameters import CONNECTION_ID
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.providers.connector import ConnectFailed
from gateways.stores.consents import Session
from gateways.stores.sealing import Unsealable, place, unseal
from projections import connections, users

MOST_SHOWN: Final = 100
NO_SESSION: Final = (
    "This page is open for half an hour after you were sent here, in the browser you were sent in. Please go back to where "
    "you came from and choose to connect a mailbox again."
)
NOT_FROM_HERE: Final = "This was not asked for on our own page. Nothing was changed; please try again."


@dataclass(frozen=True, slots=True)
class Signed:
    """A user at the page: their visit, and the key to it."""

    visit: Session
    key: str = field(repr=False)

    @property
    def proof(self) -> str:
        """What only a form of this page can say."""
        return sha256(f"form of {self.key}".encode()).hexdigest()


class ConnectPage:
    """The handlers of the page."""

    def __init__(self, services: Services, connecting: Connecting) -> None:
        self._services = services
        self._connecting = connecting

    async def show(self, request: Request) -> Response:
        """The mailboxes of the user, and how the last try ended."""
        said = _said(taken_out(request))
        signed = await self._signed(request)
        if signed is None:
            return self._no_session()
        services, visit = self._services, signed.visit
        user = await users.by_id(services.pool, visit.account, visit.user)
        data_key = (await services.keyring.get([visit.user])).get(visit.user)
        if user is None or data_key is None:
            return self._no_session()
        mailboxes = await self._mailboxes(visit, data_key)
        ready = {mailbox.id: mailbox.account for mailbox in mailboxes if not mailbox.needs_user}
        try:
            who = unseal(data_key, user.email, place("user", user.user, "email")).decode()
        except Unsealable:
            return self._no_session()
        return page(
            "connect.html",
            root=self._connecting.root,
            leads_to=self._connecting.plain_origins,
            who=who,
            back=visit.return_url,
            back_host=urlsplit(visit.return_url or "").hostname,
            failed=words_for(said.get("error")),
            connected=ready.get(said.get("connectionId", "")) if said.get("status") == "connected" else None,
            mailboxes=mailboxes,
            providers=self._providers(),
            proof=signed.proof,
        )

    async def begin(self, request: Request) -> Response:
        """A button of the page: to the provider, and back to the page."""
        provider = provider_named(request.path_params["provider"])
        signed = await self._signed(request)
        if signed is None:
            return self._no_session()
        said = _said(await form_of(request))
        foreign = request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}
        if foreign or not hmac.compare_digest(said.get("proof", "").encode(), signed.proof.encode()):
            return notice(self._connecting.root, 403, "Not from this page", NOT_FROM_HERE)
        visit, named = signed.visit, said.get("connectionId")
        wish = Wish(visit.account, visit.user, provider, visit.return_url, named, on_page=True)
        try:
            if named is not None or provider == "smtp":
                wish = await self._renewing(wish)
            return await to_provider(self._connecting, request, wish, provider)
        except (ConnectFailed, NotConnected) as failure:
            return redirect(f"{self._connecting.public_url}/connect?{urlencode({'error': failure.code})}")

    async def _renewing(self, wish: Wish) -> Wish:
        """Raises a Problem (404) where the user never had such a connection, NotConnected where it can't be renewed."""
        row, named = None, wish.connection or ""
        if CONNECTION_ID.fullmatch(named):
            row = await connections.by_id(self._services.pool, wish.owner, named)
        if row is None or (row.user, row.provider) != (wish.user, wish.provider):
            raise problems.not_found()
        if row.state == "revoked":
            raise NotConnected("unknown_connection")
        if wish.provider != "smtp":
            return wish
        try:
            return await with_servers(self._services, self._connecting, wish, row)
        except Problem:
            raise NotConnected("servers_forgotten") from None

    async def _signed(self, request: Request) -> Signed | None:
        key = self._connecting.cookies.session(request)
        visit = await self._connecting.sessions.get(key) if key else None
        return Signed(visit, key) if visit and key else None

    async def _mailboxes(self, visit: Session, data_key: bytes) -> list[Shown]:
        """Those that need their user come first, and then the newest."""
        rows = await connections.of_account(
            self._services.pool,
            visit.account,
            user=visit.user,
            states=["active", "reauth_required"],
            limit=MOST_SHOWN,
        )
        found = [one for row in rows if (one := shown(row, data_key))]
        return sorted(found, key=lambda one: not one.needs_user)

    def _providers(self) -> list[dict[str, str]]:
        """Those a button leads to: a mail server has to be told of first."""
        ready = self._connecting.connectors.by_provider
        return [
            {"id": provider, "name": name}
            for provider, name in NAMES.items()
            if provider != "smtp" and ready[provider].ready
        ]

    def _no_session(self) -> Response:
        return notice(self._connecting.root, 403, "This page is closed", NO_SESSION)


async def open_page(connecting: Connecting, wish: Wish, said: Mapping[str, str]) -> Response:
    """To the page, opened in this browser for the wish's user, with how a try ended."""
    key = await connecting.sessions.open(account=wish.owner, user=wish.user, return_url=wish.return_url)
    response = redirect(f"{connecting.public_url}/connect{'?' if said else ''}{urlencode(said)}")
    connecting.cookies.open_session(response, key)
    return response


def _said(form: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(form.decode("ascii"), max_num_fields=10))
    except ValueError:
        return {}
