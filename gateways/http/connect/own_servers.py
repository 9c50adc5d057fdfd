"""`POST /v1/connections/smtp`: a mailbox on servers of somebody's own.

By password it is connected at once, after a real login to both servers; by XOAUTH2 its user has to consent first, and the
answer is a ticket. The same mailbox again renews its connection, so repeating a request does no harm: an `Idempotency-Key` is
taken, and changes nothing.
"""

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.tokens import Secrets
from gateways.http import parameters, problems
from gateways.http.asking import read_back
from gateways.http.connect.authorising import Authorising, Connected, Wanted
from gateways.http.connect.mail_accounts import MailAccount, mail_account
from gateways.http.connect.parts import Connecting
from gateways.http.connect.starting import GIVES, ticket_url
from gateways.http.connect.wishes import Wish
from gateways.http.connect.words import NotConnected
from gateways.http.json_bodies import json_object
from gateways.http.operations import TEXT, json_response, parameter
from gateways.http.positions import LOG_POSITION
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1.connections import PREFIX, connection_json
from gateways.http.v1.pending import CONNECT, declare_write
from gateways.http.v1.shapes import CONNECTION, Connection
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT
from gateways.http.who import Caller, account_caller
from gateways.providers.connector import ConnectFailed, Consent, Granted, Identity
from projections import connections, users

SERVER: Final = {
    "type": "object",
    "required": ["host", "port", "security", "username"],
    "additionalProperties": False,
    "properties": {
        "host": {"type": "string"},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "security": {"type": "string", "enum": ["tls", "starttls", "none"]},
        "username": {"type": "string"},
        "password": {"type": "string", "writeOnly": True},
    },
}
OAUTH: Final = {
    "type": "object",
    "required": ["authorizeUrl", "tokenUrl", "clientId", "scopes"],
    "additionalProperties": False,
    "properties": {
        "authorizeUrl": {"type": "string", "format": "uri"},
        "tokenUrl": {"type": "string", "format": "uri"},
        "clientId": {"type": "string"},
        "clientSecret": {"type": "string", "writeOnly": True},
        "scopes": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    },
}
AN_ACCOUNT: Final = {
    "userId": "usr_01jnqrstvwxyz0123456789abc",
    "email": "ada@example.org",
    "smtp": {"host": "smtp.example.org", "port": 465, "security": "tls", "username": "ada@example.org"},
    "imap": {"host": "imap.example.org", "port": 993, "security": "tls", "username": "ada@example.org"},
    "auth": "password",
    "password": "…",
}
BODY: Final = {
    "type": "object",
    "required": ["userId", "email", "smtp", "imap", "auth"],
    "additionalProperties": False,
    "properties": {
        "userId": {"type": "string"},
        "email": {"type": "string"},
        "smtp": SERVER,
        "imap": SERVER,
        "auth": {"type": "string", "enum": ["password", "xoauth2"]},
        "password": {"type": "string", "writeOnly": True, "description": "Of both servers, where they have none."},
        "oauth": OAUTH,
    },
    "example": AN_ACCOUNT,
}


def routes(services: Services, connecting: Connecting) -> APIRouter:
    router = APIRouter(tags=["connections"])
    declare_write(
        router,
        services,
        "POST",
        f"{PREFIX}/smtp",
        OwnServersRoute(services, connecting).connect,
        kind=CONNECT,
        name="connectSmtp",
        summary="Connect a mailbox on other mail servers",
        answers={
            201: {"model": Connection, "description": "Both servers were logged in to: it is connected."},
            202: GIVES,
        },
        refusals=(
            "invalid_request",
            "login_failed",
            "host_not_allowed",
            "not_found",
            "too_many_connections",
            "too_large",
            *OF_ACCOUNT,
        ),
        parameters=(
            parameter("Idempotency-Key", "header", "Taken; the same mailbox stays one connection.", TEXT, CONNECTION),
        ),
        security=API_KEY,
        body={"application/json": {"schema": BODY}},
    )
    return router


class OwnServersRoute:
    """The handler; it raises a Problem where it refuses."""

    def __init__(self, services: Services, connecting: Connecting) -> None:
        self._services = services
        self._connecting = connecting
        self._authorising = Authorising(services, connecting)

    async def connect(self, request: Request) -> Response:
        """By password at once; by XOAUTH2 the user is to be sent to the address of the answer."""
        caller = await account_caller(self._services, request, "connections:write")
        parameters.idempotency_key(request)
        body = await json_object(request)
        account = mail_account(body, unencrypted=self._connecting.allow_private_hosts)
        if await users.by_id(self._services.pool, caller.owner, account.user) is None:
            raise problems.not_found()
        try:
            if account.servers.oauth is not None:
                return await self._ticket(caller, account)
            return await self._connected(request, caller, account)
        except ConnectFailed as failure:
            raise _refused(failure) from None
        except NotConnected as failure:
            raise _not_connected(failure) from None

    async def _ticket(self, caller: Caller, account: MailAccount) -> Response:
        wish = Wish(
            caller.owner,
            account.user,
            "smtp",
            login_hint=account.email,
            address=account.email,
            servers=account.servers,
        )
        # Told now rather than to the user: whether its authorization server is one that we call.
        self._connecting.connectors.smtp.consent_url(
            Consent("-", "-", "-", self._connecting.callback("smtp")), account.servers
        )
        return json_response({"url": await ticket_url(self._connecting, wish)}, 202, dict(NO_STORE))

    async def _connected(self, request: Request, caller: Caller, account: MailAccount) -> Response:
        await self._connecting.connectors.smtp.login(account.servers)
        granted = Granted(Secrets(servers=account.servers), Identity(account.email), [], [], ("login",))
        wanted = Wanted(caller.owner, account.user, "smtp", auth="password")
        connected = await self._authorising.connect(request, wanted, granted)
        body = await read_back(self._shown(caller, connected))
        if body is None:
            raise problems.not_found()  # its user has been deleted since
        headers = {**NO_STORE, LOG_POSITION: connected.log_position, "Location": f"{PREFIX}/{connected.connection}"}
        return Response(body, 201, headers, "application/json")

    async def _shown(self, caller: Caller, connected: Connected) -> bytes | None:
        services = self._services
        row = await connections.by_id(services.pool, caller.owner, connected.connection)
        keys = await services.keyring.get([row.user]) if row else {}
        return connection_json(row, keys[row.user]) if row and row.user in keys else None


def _refused(failure: ConnectFailed) -> Problem:
    """A server that can't be reached and one that refuses are one answer: which, its sentence says to its user."""
    if failure.code == "host_not_allowed":
        return Problem("host_not_allowed", failure.sentence)
    return Problem("login_failed", failure.sentence)


def _not_connected(failure: NotConnected) -> Problem:
    match failure.code:
        case "too_many_connections":
            return Problem("too_many_connections", "The user has as many connections as there may be.")
        case "user_deleted":
            return problems.not_found()
        case _:
            return problems.unavailable()
