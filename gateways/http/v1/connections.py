"""Users' connections: what state each is in, and ending one.

A connection's address is sealed under its user's data key, for `place("connection", connection, "account")`.
"""

import re
from dataclasses import dataclass
from typing import Final, get_args

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.connection_commands import RevokeConnection
from domain.connection_events import Provider
from gateways.http import parameters, problems
from gateways.http.asking import settled
from gateways.http.edge import Shortcut
from gateways.http.operations import AFTER_PARAMETER, SAME, TEXT, declare, list_response, parameter
from gateways.http.parameters import CONNECTION_ID, USER_ID
from gateways.http.positions import LOG_POSITION, after_position, list_position
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.bodies import Faults
from gateways.http.v1.last_errors import last_error
from gateways.http.v1.pending import REVOKE, declare_write
from gateways.http.v1.queries import query_of
from gateways.http.v1.remembered import Page, Remembered
from gateways.http.v1.shapes import CONNECTION, USER, Connection, Connections, State
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT
from gateways.http.who import account_caller
from gateways.log.decisions import Asked
from gateways.stores.sealing import Unsealable, place, unseal
from projections import connections, users
from projections.connections import ConnectionRow
from schemas import topics
from schemas.envelope import stamp

PREFIX: Final = "/v1/connections"
PROVIDERS: Final = get_args(Provider)
STATES: Final = get_args(State)
LIVE: Final = [state for state in STATES if state != "revoked"]
QUERY: Final = ("userId", "provider", "state", *pages.NAMES)
CONNECTION_PARAMETER: Final = parameter("connection_id", "path", "The connection's id.", TEXT, CONNECTION)


def shortcut(services: Services) -> Shortcut:
    """What a product asks before everything it does for a user: the framework would take a good part of its time."""
    return Shortcut("GET", PREFIX, re.compile(re.escape(PREFIX)), Connected(services).list_all)


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["connections"])
    connected = Connected(services)
    declare(
        router,
        "GET",
        PREFIX,
        connected.list_all,
        name="listConnections",
        summary="List connections",
        answers={200: {"model": Connections, "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", "outcome_unknown", *OF_ACCOUNT),
        parameters=(
            parameter("userId", "query", "Only this user's.", TEXT, USER),
            parameter("provider", "query", "Only those at this provider.", {**TEXT, "enum": [*PROVIDERS]}, "outlook"),
            parameter(
                "state",
                "query",
                "Only those in this state; without it, all that are not revoked.",
                {**TEXT, "enum": [*STATES, "all"]},
                "all",
            ),
            *pages.PARAMETERS,
            AFTER_PARAMETER,
        ),
        security=API_KEY,
    )
    _declare_one(router, services, connected)
    return router


def _declare_one(router: APIRouter, services: Services, connected: "Connected") -> None:
    """What can be done with one connection."""
    declare(
        router,
        "GET",
        PREFIX + "/{connection_id}",
        connected.show,
        name="getConnection",
        summary="Look at a connection",
        answers={200: {"model": Connection, "description": "The connection, also where it is revoked."}},
        refusals=("invalid_request", "not_found", "outcome_unknown", *OF_ACCOUNT),
        parameters=(CONNECTION_PARAMETER, AFTER_PARAMETER),
        security=API_KEY,
    )
    declare_write(
        router,
        services,
        "DELETE",
        PREFIX + "/{connection_id}",
        connected.revoke,
        kind=REVOKE,
        name="revokeConnection",
        summary="Revoke a connection",
        answers={204: {"description": "It is not used any more."}},
        refusals=("not_found", *OF_ACCOUNT),
        parameters=(CONNECTION_PARAMETER,),
        security=API_KEY,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections a list is to show."""

    user: str | None
    provider: str | None
    states: list[str]
    limit: int
    before: str | None


class Connected:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._remembered = Remembered(services.folded, (connections.PROJECTION.name, users.PROJECTION.name))

    async def list_all(self, request: Request) -> Response:
        """The connections of all the account's users, or of one of them, the newest first. `X-Log-Position` is where the
        stream of `GET /v1/events` goes on from what is listed here."""
        caller = await account_caller(self._services, request, "connections:read")
        await after_position(self._services, request)
        # A page that is remembered is as new as this: what is heard of later makes it be forgotten.
        key, position = (caller.owner, request.scope["query_string"]), list_position(self._services)
        page = self._remembered.page(key)
        if page is None:
            version = self._remembered.version
            page = await self._page(caller.owner, _wanted(request))
            self._remembered.keep(key, page, version)
        return list_response(request, *page, position)

    async def _page(self, owner: str, wanted: Wanted) -> Page:
        rows = await connections.of_account(
            self._services.pool,
            owner,
            user=wanted.user,
            provider=wanted.provider,
            states=wanted.states,
            limit=wanted.limit + 1,
            before=wanted.before,
        )
        last = rows[wanted.limit - 1].connection if len(rows) > wanted.limit else None
        return pages.page(await self._opened(rows[: wanted.limit]), last)

    async def show(self, request: Request) -> Response:
        """Its state, when its token expires, when it was used last, and what went wrong last."""
        caller = await account_caller(self._services, request, "connections:read")
        connection = parameters.connection_id(request)
        await after_position(self._services, request)
        opened = await self._opened([await self._row(caller.owner, connection)])
        if not opened:
            raise problems.not_found()
        return Response(opened[0], 200, NO_STORE, "application/json")

    async def revoke(self, request: Request) -> Response:
        """We use it no more from now on; its tokens are destroyed here, and at the provider where that can be asked for.

        Revoking it again changes nothing.
        """
        services = self._services
        caller = await account_caller(services, request, "connections:write")
        row = await self._row(caller.owner, parameters.connection_id(request))
        command = RevokeConnection(row.connection, row.user, "caller")
        asked = Asked(topics.CONNECTION_COMMANDS.name, row.user, row.connection, command, connections.PROJECTION.name)
        # Refused where it is revoked already, or was so long ago that the decider has forgotten it: as was wished.
        decision = await settled(services.connection_decisions, request, asked)
        return Response(status_code=204, headers={LOG_POSITION: decision.log_position})

    async def _row(self, owner: str, connection: str) -> ConnectionRow:
        """Raises a Problem (404)."""
        row = await connections.by_id(self._services.pool, owner, connection)
        if row is None:
            raise problems.not_found()
        return row

    async def _opened(self, rows: list[ConnectionRow]) -> list[bytes]:
        """Connections as JSON; those of a user who was erased a moment ago are left out."""
        keys = await self._services.keyring.get({row.user for row in rows})
        return [opened for row in rows if row.user in keys and (opened := connection_json(row, keys[row.user]))]


def _wanted(request: Request) -> Wanted:
    """Raises a Problem (400) that tells all that is wrong."""
    faults = Faults()
    said = query_of(request, QUERY, faults)
    user, provider, state = said.get("userId"), said.get("provider"), said.get("state")
    if provider is not None and provider not in PROVIDERS:
        faults.add("/query/provider", f"`provider` has to be one of {', '.join(PROVIDERS)}.")
    if state is not None and state not in (*STATES, "all"):
        faults.add("/query/state", f"`state` has to be one of {', '.join(STATES)}, all.")
    limit, before = pages.limit_of(request, faults), pages.cursor_of(request, CONNECTION_ID, faults)
    faults.refuse()
    states = LIVE if state is None else [*STATES] if state == "all" else [state]
    # What can't be a user's id is nobody's, as an id that was never given out.
    return Wanted(user if user is None or USER_ID.fullmatch(user) else "", provider, states, limit, before)


def connection_json(row: ConnectionRow, data_key: bytes) -> bytes | None:
    """A connection as the API shows it; `data_key` is its user's. None where the user was erased a moment ago."""
    try:
        account = unseal(data_key, row.account, place("connection", row.connection, "account")).decode()
    except Unsealable:
        return None
    return orjson.dumps(
        {
            "id": row.connection,
            "userId": row.user,
            "provider": row.provider,
            "account": account,
            "scopes": row.scopes,
            "missingScopes": row.missing_scopes,
            "state": row.state,
            "tokenExpiresAt": stamp(row.token_expires_at) if row.token_expires_at else None,
            "connectedAt": stamp(row.connected_at),
            "lastUsedAt": stamp(row.last_used_at) if row.last_used_at else None,
            "lastError": last_error(row.last_error, row.last_error_at),
        }
    )
