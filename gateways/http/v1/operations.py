"""What has come of requests that were taken on, but not decided before their answer had to be given.

An operation's id holds what was to be made and a proof that we gave it to this account (HMAC-SHA-256): nothing is kept of it.
"""

import hmac
import re
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import problems
from gateways.http.operations import AFTER_PARAMETER, TEXT, declare, json_response, parameter
from gateways.http.positions import after_position
from gateways.http.services import Services
from gateways.http.v1.send_shapes import OPERATION, Operation
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT
from gateways.http.who import account_caller
from gateways.stores.keyset import Keyset
from projections import send_lists
from schemas.ids import ALPHABET

PATH: Final = "/v1/operations"
MESSAGES: Final = "/v1/messages"
OPERATION_ID: Final = re.compile(f"op_([{ALPHABET}]{{26}})_([A-Za-z0-9_-]{{43}})")
OPERATION_PARAMETER: Final = parameter("operation_id", "path", "The operation's id.", TEXT, OPERATION)
#: The problem that each refusal would have been.
REFUSALS: Final = {
    "no_active_connection": "no_active_connection",
    "idempotency_key_reused": "idempotency_key_reused",
    "user_deleted": "not_found",
}


def operation_of(keyset: Keyset, account: str, send: str) -> str:
    """The id of the operation that makes this send."""
    return f"op_{send.removeprefix('snd_')}_{_proof(keyset, account, send)}"


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["messages"])
    declare(
        router,
        "GET",
        PATH + "/{operation_id}",
        Operations(services).show,
        name="getOperation",
        summary="Look what has come of a request",
        answers={200: {"model": Operation, "description": "Whether it is decided, and how."}},
        refusals=("invalid_request", "not_found", "outcome_unknown", *OF_ACCOUNT),
        parameters=(OPERATION_PARAMETER, AFTER_PARAMETER),
        security=API_KEY,
    )
    return router


class Operations:
    """The handler."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, request: Request) -> Response:
        """Asked for again until it is not `pending` any more, it tells what an answer in time would have told."""
        services = self._services
        caller = await account_caller(services, request, "sends:read")
        operation: str = request.path_params["operation_id"]
        send = _send_of(services.keyset, caller.owner, operation)
        await after_position(services, request)
        said = await self._outcome(caller.owner, send)
        return json_response({"operationId": operation, **said}, 200, NO_STORE)

    async def _outcome(self, account: str, send: str) -> dict[str, Any]:
        pool = self._services.pool
        # The refusal first: where there is none, a send that comes between the two questions is seen by the second.
        refusal = await send_lists.refusal(pool, send)
        if refusal is not None and refusal.reason == "repeated" and refusal.of is not None:
            return _done(refusal.of)
        if refusal is not None:
            code = REFUSALS.get(refusal.reason, "internal_error")
            return _said("refused", code=code, detail=problems.KINDS[code].meaning)
        if await send_lists.by_id(pool, account, send) is not None:
            return _done(send)
        if await send_lists.is_hidden(pool, account, send):
            return _said("refused", code="not_found", detail=problems.KINDS["not_found"].meaning)
        return _said("pending")


def _done(send: str) -> dict[str, Any]:
    return _said("done", messageId=send, location=f"{MESSAGES}/{send}")


def _said(status: str, **more: str) -> dict[str, Any]:
    return {"status": status, "messageId": None, "location": None, "code": None, "detail": None, **more}


def _send_of(keyset: Keyset, account: str, operation: str) -> str:
    """Raises a Problem (404) where we did not give this id to this account."""
    found = OPERATION_ID.fullmatch(operation)
    send = f"snd_{found[1]}" if found else ""
    if found is None or not hmac.compare_digest(found[2], _proof(keyset, account, send)):
        raise problems.not_found()
    return send


def _proof(keyset: Keyset, account: str, send: str) -> str:
    return keyset.digest("link", "operation", account, send)
