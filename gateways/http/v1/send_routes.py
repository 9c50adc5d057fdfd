"""The operations on sends, as `/openapi.json` has them."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter

from gateways.http.message_lists import DEFAULT_LIMIT
from gateways.http.operations import (
    AFTER_PARAMETER,
    SAME,
    TEXT,
    declare,
    number_parameter,
    parameter,
)
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.operation_shapes import SEND
from gateways.http.v1.pending import CHANGE_SEND, SEND_MAIL, declare_write
from gateways.http.v1.send_shapes import NewSchedule, NewSend, Queued, RawSend, Send, Sends
from gateways.http.v1.shapes import USER
from gateways.http.v1.users import API_KEY, OF_ACCOUNT

PATH: Final = "/v1/messages"
ONE: Final = PATH + "/{send_id}"
ASK: Final = PATH + "/send"
#: Sends of one page: each is opened for it.
LARGEST_PAGE: Final = 100
SEND_PARAMETER: Final = parameter("send_id", "path", "The message's id.", TEXT, SEND)
PREFER: Final = parameter(
    "Prefer", "header", "`wait=10`: answer when the mail has come to an end, within so many seconds (30 at most).", TEXT,
    "wait=10",
)  # fmt: skip
KEY: Final = parameter("Idempotency-Key", "header", "Repeats answer as the first did, for ever.", TEXT, "order-4711")
SETTLED: Final = {"model": Send, "description": "It has come to an end while the caller waited (`Prefer`)."}
OF_ONE: Final = ("not_found", "outcome_unknown", *OF_ACCOUNT)


def declare_sends(router: APIRouter, services: Services, mails: Any, statuses: Sequence[str]) -> None:
    """Adds all of them; `mails` has their handlers."""
    declare_write(
        router,
        services,
        "POST",
        ASK,
        mails.send,
        kind=SEND_MAIL,
        name="sendMessage",
        summary="Send a mail",
        answers={
            202: {"model": Queued, "description": "It is on record, and goes out once."},
            200: SETTLED,
        },
        refusals=(
            "invalid_request",
            "no_active_connection",
            "too_many_attachments",
            "not_found",
            "idempotency_key_reused",
            "too_large",
            "message_too_large",
            "no_recipients",
            "too_many_recipients",
            *OF_ACCOUNT,
        ),
        parameters=(KEY, PREFER),
        security=API_KEY,
        body={"application/json": {"schema": _schema(NewSend)}},
    )
    declare(
        router,
        "GET",
        PATH,
        mails.list_all,
        name="listSends",
        summary="List mails",
        answers={200: {"model": Sends, "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", "outcome_unknown", *OF_ACCOUNT),
        parameters=(
            parameter("userId", "query", "Only this user's.", TEXT, USER),
            parameter("status", "query", "Only those in this state.", {**TEXT, "enum": [*statuses]}, "sent"),
            number_parameter(
                "limit", f"How many; {DEFAULT_LIMIT} where missing, at most {LARGEST_PAGE}: more is capped.",
                least=1, example=50,
            ),
            number_parameter("offset", "How many to leave out; better go on by `cursor`.", least=0, example=0),
            pages.PARAMETERS[1],
            AFTER_PARAMETER,
        ),
        security=API_KEY,
    )  # fmt: skip
    _declare_one(router, services, mails)


def _declare_one(router: APIRouter, services: Services, mails: Any) -> None:
    """What can be done with one mail."""
    reads: dict[str, Any] = {"parameters": (SEND_PARAMETER, AFTER_PARAMETER), "security": API_KEY}
    declare(
        router, "GET", ONE, mails.show, name="getSend", summary="Look what has become of a mail",
        answers={200: {"model": Send, "description": "The mail, with each attempt to send it."}},
        refusals=("invalid_request", *OF_ONE), **reads,
    )  # fmt: skip
    declare(
        router, "GET", ONE + "/raw", mails.raw, name="getRawSend", summary="Look at what was asked to be sent",
        answers={200: {"model": RawSend, "description": "Its body, and links to its attachments."}},
        refusals=("invalid_request", *OF_ONE), **reads,
    )  # fmt: skip
    declare_write(
        router, services, "PATCH", ONE, mails.move,
        kind=CHANGE_SEND, name="moveSend", summary="Move a scheduled mail",
        answers={200: {"model": Send, "description": "It goes out then."}},
        refusals=("invalid_request", "too_late", "too_large", *OF_ONE), parameters=(SEND_PARAMETER,), security=API_KEY,
        body={"application/json": {"schema": NewSchedule.model_json_schema()}},
    )  # fmt: skip
    declare_write(
        router, services, "DELETE", ONE, mails.cancel,
        kind=CHANGE_SEND, name="cancelSend", summary="Cancel a mail",
        answers={200: {"model": Send, "description": "It does not go out; asked again, the same."}},
        refusals=("too_late", *OF_ONE), parameters=(SEND_PARAMETER,), security=API_KEY,
    )  # fmt: skip
    declare_write(
        router, services, "POST", ONE + "/retry", mails.retry,
        kind=CHANGE_SEND, name="retrySend", summary="Try a mail again",
        answers={202: {"model": Queued, "description": "It is tried again, with what is at the provider already."},
                 200: SETTLED},
        refusals=("already_sent", "not_ended", *OF_ONE), parameters=(SEND_PARAMETER, PREFER), security=API_KEY,
    )  # fmt: skip


def _schema(model: type[NewSend]) -> dict[str, Any]:
    """Whole in itself: what it refers to stands in its place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            return inlined(parts[name]) if name in parts else {key: inlined(one) for key, one in value.items()}
        return [inlined(one) for one in value] if isinstance(value, list) else value

    inlined_schema: dict[str, Any] = inlined(schema)
    return inlined_schema
