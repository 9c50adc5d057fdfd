"""An account's users, whose mailboxes may be connected: making, finding and deleting them."""

import re
from typing import Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.fields import Sealed
from domain.users import DeleteUser, UserRefused
from gateways.http import parameters, problems
from gateways.http.asking import read_back, settled
from gateways.http.operations import AFTER_PARAMETER, SAME, TEXT, declare, list_response, parameter
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.bodies import Faults
from gateways.http.v1.new_users import email_digest, external_id_digest, make_user
from gateways.http.v1.pending import CREATE_USER, DELETE_USER, declare_write
from gateways.http.v1.queries import query_of
from gateways.http.v1.shapes import EMAIL, USER, NewUser, User, Users
from gateways.http.who import account_caller
from gateways.log.decisions import Asked
from gateways.stores.sealing import Unsealable, place, unseal
from projections import users
from projections.users import UserRow
from schemas import topics
from schemas.envelope import stamp

PREFIX: Final = "/v1/users"
NO_STORE: Final = {"Cache-Control": "no-store"}
API_KEY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}]
OF_ACCOUNT: Final = (
    "credentials_invalid", "scope_missing", "api_key_required", "foreign_origin", "unavailable", "rate_limited",
)  # fmt: skip
USER_PARAMETER: Final = parameter("user_id", "path", "The user's id.", TEXT, USER)
QUERY: Final = ("email", "externalId", *pages.NAMES)
#: A cursor of users names a position in the log.
POSITION: Final = re.compile("[0-9]{1,18}")


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["users"])
    people = People(services)
    declare_write(
        router,
        services,
        "POST",
        PREFIX,
        people.create,
        kind=CREATE_USER,
        name="createUser",
        summary="Make a user",
        answers={201: {"model": User, "description": "Mailboxes can be connected for them."}},
        refusals=(
            "invalid_request",
            "email_taken",
            "external_id_taken",
            "idempotency_key_reused",
            "gone",
            "too_large",
            *OF_ACCOUNT,
        ),
        parameters=(parameter("Idempotency-Key", "header", "Repeats answer as the first did.", TEXT, "signup-4711"),),
        security=API_KEY,
        body={"application/json": {"schema": NewUser.model_json_schema()}},
    )
    declare(
        router,
        "GET",
        PREFIX,
        people.list_all,
        name="listUsers",
        summary="List users",
        answers={200: {"model": Users, "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", "outcome_unknown", *OF_ACCOUNT),
        parameters=(
            parameter("email", "query", "Only who has this address, in any case.", TEXT, EMAIL),
            parameter("externalId", "query", "Only who has this external id.", TEXT, "4711"),
            *pages.PARAMETERS,
            AFTER_PARAMETER,
        ),
        security=API_KEY,
    )
    _declare_one(router, services, people)
    return router


def _declare_one(router: APIRouter, services: Services, people: "People") -> None:
    """What can be done with one user."""
    declare(
        router,
        "GET",
        PREFIX + "/{user_id}",
        people.show,
        name="getUser",
        summary="Look at a user",
        answers={200: {"model": User, "description": "The user."}},
        refusals=("invalid_request", "not_found", "outcome_unknown", *OF_ACCOUNT),
        parameters=(USER_PARAMETER, AFTER_PARAMETER),
        security=API_KEY,
    )
    declare_write(
        router,
        services,
        "DELETE",
        PREFIX + "/{user_id}",
        people.delete,
        kind=DELETE_USER,
        name="deleteUser",
        summary="Delete a user and all their connections",
        answers={204: {"description": "They are gone."}},
        refusals=("not_found", *OF_ACCOUNT),
        parameters=(USER_PARAMETER,),
        security=API_KEY,
    )


class People:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, request: Request) -> Response:
        """The e-mail address and the external id must be free within the account."""
        caller = await account_caller(self._services, request, "users:write")
        made = await make_user(self._services, request, caller)
        headers = {**NO_STORE, LOG_POSITION: made.log_position, "Location": f"{PREFIX}/{made.row.user}"}
        if made.replayed:
            headers["Idempotency-Replayed"] = "true"
        return _json(await read_back(self._one(made.row)), 201, headers)

    async def list_all(self, request: Request) -> Response:
        """The account's users, the newest first."""
        services = self._services
        caller = await account_caller(services, request, "users:read")
        faults, keyset = Faults(), services.keyset
        said = query_of(request, QUERY, faults)
        limit, before = pages.limit_of(request, faults), pages.cursor_of(request, POSITION, faults)
        faults.refuse()
        await after_position(services, request)
        rows = await users.of_account(
            services.pool,
            caller.owner,
            limit=limit + 1,
            before=int(before) if before else None,
            email_digest=email_digest(keyset, caller.owner, said["email"]) if "email" in said else None,
            external_id_digest=external_id_digest(keyset, caller.owner, said["externalId"])
            if "externalId" in said
            else None,
        )
        last = str(rows[limit - 1].position) if len(rows) > limit else None
        return list_response(request, *pages.page(await self._opened(rows[:limit]), last))

    async def show(self, request: Request) -> Response:
        """Who they are."""
        caller = await account_caller(self._services, request, "users:read")
        user = parameters.user_id(request)
        await after_position(self._services, request)
        row = await users.by_id(self._services.pool, caller.owner, user)
        if row is None:
            raise problems.not_found()
        return _json(await self._one(row), 200, NO_STORE)

    async def delete(self, request: Request) -> Response:
        """Their connections are revoked, and what we know of them can't be read by anybody from then on."""
        services = self._services
        caller = await account_caller(services, request, "users:write")
        row = await users.by_id(services.pool, caller.owner, parameters.user_id(request))
        if row is None:
            raise problems.not_found()
        command = DeleteUser(caller.owner, row.user, caller.by, row.email_digest, row.external_id_digest)
        asked = Asked(topics.ACCOUNT_COMMANDS.name, caller.owner, row.user, command, users.PROJECTION.name)
        decision = await settled(services.account_decisions, request, asked)
        if isinstance(decision.event, UserRefused):
            raise problems.not_found()
        return Response(status_code=204, headers={LOG_POSITION: decision.log_position})

    async def _one(self, row: UserRow) -> bytes:
        """Raises a Problem (404) where the user's data key is gone."""
        opened = await self._opened([row])
        if not opened:
            raise problems.not_found()
        return opened[0]

    async def _opened(self, rows: list[UserRow]) -> list[bytes]:
        """Users as JSON; who can't be opened was erased a moment ago, and is left out."""
        keys = await self._services.keyring.get(row.user for row in rows)
        return [opened for row in rows if row.user in keys and (opened := _user(row, keys[row.user]))]


def _user(row: UserRow, data_key: bytes) -> bytes | None:
    def opened(sealed: Sealed | None, field: str) -> str | None:
        return None if sealed is None else unseal(data_key, sealed, place("user", row.user, field)).decode()

    try:
        said = {
            "id": row.user,
            "email": opened(row.email, "email"),
            "displayName": opened(row.display_name, "displayName"),
            "externalId": opened(row.external_id, "externalId"),
            "createdAt": stamp(row.created_at),
        }
    except Unsealable:
        return None
    return orjson.dumps(said)


def _json(body: bytes, status: int, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, "application/json")
