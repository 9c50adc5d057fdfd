"""Requests that could not be answered in time, and what their callers are told to look at instead: `202`, and an operation.

A decision that is not in the tables after two seconds comes later; an append that was not acknowledged is decided, too, or
lapses (DESIGN 4, rules 1 and 9). Either way nothing may be said of it but where to look. An operation's id holds which
command it was, and a proof that we gave it to this account (HMAC-SHA-256): nothing is kept of it.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.scopes import KeyScope
from gateways.http.asking import ASKED
from gateways.http.operations import Handler, declare, json_response
from gateways.http.services import Services
from gateways.http.v1.operation_shapes import Pending
from gateways.http.who import ACCOUNT
from gateways.log.command_log import OutcomeUnknown
from gateways.log.decisions import Asked, Unsettled
from gateways.stores.keyset import Keyset
from schemas import topics
from schemas.envelope import milliseconds, moment
from schemas.ids import ALPHABET

PATH: Final = "/v1/operations"
#: Seconds after which it is worth looking.
LOOK_AGAIN: Final = {"Retry-After": "1", "Cache-Control": "no-store"}
OPERATION_ID: Final = re.compile(
    f"op_([a-z])([auw])([{ALPHABET}]{{10}})([{ALPHABET}]{{26}})([{ALPHABET}]{{26}})_([A-Za-z0-9_-]{{43}})"
)
#: How keys of the log begin that a command may have been appended under.
KEYS: Final = {"acc": "a", "usr": "u", "whk": "w"}
AS_WISHED: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request. `letter` stands for it in ids, for ever; `events` is the topic of what comes of it.

    `place` is where that is which it makes or changes, by the id of what the command was about; `key`, in it, what the
    command was appended under. `as_wished`: refusals that are what the caller wanted. `secret`: one is shown with the answer.
    """

    letter: str
    events: str
    scope: KeyScope
    place: str | None = None
    as_wished: frozenset[str] = AS_WISHED
    secret: bool = False

    @property
    def of_send(self) -> bool:
        """Whether it is about a mail that goes out."""
        return self.events == topics.SEND_EVENTS.name


_ACCOUNT, _CONNECTION = topics.ACCOUNT_EVENTS.name, topics.CONNECTION_EVENTS.name
_SEND, _WEBHOOK = topics.SEND_EVENTS.name, topics.WEBHOOK_EVENTS.name

CREATE_USER: Final = Kind("u", _ACCOUNT, "users:read", "/v1/users/{subject}")
DELETE_USER: Final = Kind("v", _ACCOUNT, "users:read")
CONNECT: Final = Kind("c", _CONNECTION, "connections:read", "/v1/connections/{subject}")
REVOKE: Final = Kind(
    "d", _CONNECTION, "connections:read", "/v1/connections/{subject}", frozenset({"already", "unknown"})
)
SEND_MAIL: Final = Kind("m", _SEND, "sends:read", "/v1/messages/{subject}")
CHANGE_SEND: Final = Kind("n", _SEND, "sends:read", "/v1/messages/{subject}", frozenset({"cancelled"}))
UPLOAD: Final = Kind("a", _ACCOUNT, "sends:read", "/v1/attachments/{subject}")
DELETE_ATTACHMENT: Final = Kind("b", _ACCOUNT, "sends:read")
ADD_WEBHOOK: Final = Kind("w", _ACCOUNT, "webhooks:read", "/v1/webhooks/{subject}", secret=True)
ROTATE_WEBHOOK: Final = Kind("r", _ACCOUNT, "webhooks:read", "/v1/webhooks/{subject}", secret=True)
ENABLE_WEBHOOK: Final = Kind("e", _ACCOUNT, "webhooks:read", "/v1/webhooks/{subject}", frozenset({"already"}))
REMOVE_WEBHOOK: Final = Kind("x", _ACCOUNT, "webhooks:read")
ROTATE_OWN_SECRET: Final = Kind("o", _ACCOUNT, "webhooks:read", "/v1/webhooks/secret")
TELL: Final = Kind("t", _WEBHOOK, "webhooks:read", "/v1/webhooks/{key}/deliveries", frozenset({"on_its_way"}))
TELL_OF_SEND: Final = Kind("s", _WEBHOOK, "webhooks:read", None, frozenset({"on_its_way"}))
KINDS: Final[Mapping[str, Kind]] = {
    kind.letter: kind
    for kind in (
        CREATE_USER, DELETE_USER, CONNECT, REVOKE, SEND_MAIL, CHANGE_SEND, UPLOAD, DELETE_ATTACHMENT, ADD_WEBHOOK,
        ROTATE_WEBHOOK, ENABLE_WEBHOOK, REMOVE_WEBHOOK, ROTATE_OWN_SECRET, TELL, TELL_OF_SEND,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """What an operation's id says: `asked_at` is when its caller was told to look, `command` the id of the command."""

    kind: Kind
    asked_at: datetime
    command: str
    key: str
    proof: str

    def is_of(self, keyset: Keyset, account: str) -> bool:
        """Whether we gave this id to this account."""
        return hmac.compare_digest(self.proof, _proof(keyset, account, self))


def operation_of(keyset: Keyset, account: str, kind: Kind, asked: Asked, at: datetime) -> str:
    """The id of the operation that this command is."""
    named = Named(kind, at, asked.command_id, asked.key, "")
    return f"op_{_said(named)}_{_proof(keyset, account, named)}"


def operation_asked(keyset: Keyset, account: str, kind: Kind, request: Request) -> str | None:
    """The id of the operation that this request's last command is; None where it has asked for none."""
    asked: Asked | None = request.scope.get(ASKED)
    return None if asked is None else operation_of(keyset, account, kind, asked, datetime.now(UTC))


def named_by(operation: str) -> Named | None:
    """What this id says, proven or not; None where it is none."""
    found = OPERATION_ID.fullmatch(operation)
    kind = KINDS.get(found[1]) if found else None
    if found is None or kind is None:
        return None
    prefix = next(prefix for prefix, letter in KEYS.items() if letter == found[2])
    at = sum(ALPHABET.index(digit) << 5 * place for place, digit in enumerate(reversed(found[3])))
    try:
        return Named(kind, moment(at), f"cmd_{found[4]}", f"{prefix}_{found[5]}", found[6])
    except (ValueError, OverflowError):
        return None


def _said(named: Named) -> str:
    """Its kind, its key's kind, milliseconds since 1970 in Crockford's base 32, the command and the key."""
    at = milliseconds(named.asked_at)
    digits = "".join(ALPHABET[at >> 5 * place & 31] for place in range(9, -1, -1))
    prefix, _, key = named.key.partition("_")
    return f"{named.kind.letter}{KEYS[prefix]}{digits}{named.command.removeprefix('cmd_')}{key}"


def _proof(keyset: Keyset, account: str, named: Named) -> str:
    return keyset.digest("link", "operation", account, _said(named))


def following(services: Services, kind: Kind, handler: Handler) -> Handler:
    """The handler; where what it asked for is not known to be decided in time, its caller is told where to look."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (Unsettled, OutcomeUnknown):
            operation = operation_asked(services.keyset, request.scope.get(ACCOUNT, ""), kind, request)
            if operation is None:
                raise
            said = {"operationId": operation, "status": "pending"}
            if kind.of_send:
                said["messageId"] = request.scope[ASKED].subject
            return json_response(said, 202, {**LOOK_AGAIN, "Location": f"{PATH}/{operation}"})

    return answer


def declare_write(
    router: APIRouter,
    services: Services,
    method: str,
    path: str,
    handler: Handler,
    *,
    kind: Kind,
    answers: Mapping[int, dict[str, Any]],
    refusals: tuple[str, ...],
    **more: Any,
) -> None:
    """Adds an operation that changes something: its outcome is never left unknown, but `202` and an operation."""
    declare(
        router,
        method,
        path,
        following(services, kind, handler),
        answers={**answers, 202: _or_pending(answers.get(202))},
        refusals=[code for code in refusals if code != "outcome_unknown"],
        **more,
    )


def _or_pending(usual: dict[str, Any] | None) -> dict[str, Any]:
    """The `202` that the operation has anyway, if any, or that of one that is not known to be decided."""
    told = "It is not known yet what comes of it: `Location` tells in a moment."
    if usual is None:
        return {"model": Pending, "description": told}
    said = {**usual, "description": f"{usual['description']} Or: {told[0].lower()}{told[1:]}"}
    if "model" in usual:
        return said | {"model": usual["model"] | Pending}
    (shape,) = [content["schema"] for content in usual["content"].values()]
    return said | {"content": {"application/json": {"schema": {"anyOf": [shape, Pending.model_json_schema()]}}}}
