"""What `/openapi.json` says of the live streams, which answer for themselves and not by way of the framework."""

from typing import Any, Final

from gateways.http.operations import ADDRESS_PARAMETER, BEARER, TEXT, parameter, refusing
from gateways.http.resume import token
from gateways.http.shapes import AT, MESSAGE
from schemas.topics import MAILBOX_EVENTS

POSITION: Final = token(MAILBOX_EVENTS.name, 0, 1841)
CREDENTIALS: Final = (
    parameter("token", "query", "The session token, where no header can be set.", TEXT, "uct_…"),
    parameter("api_key", "query", "The API key, where no header can be set.", TEXT, "pl_live_…"),
)
AFTER: Final = parameter(
    "after",
    "query",
    "Go on from here: the last `id`, or any `X-Log-Position`. Without it, from now on.",
    TEXT,
    POSITION,
)
LAST_EVENT_ID: Final = parameter(
    "Last-Event-ID", "header", "As `after`, and stronger; `EventSource` sends it by itself.", TEXT, POSITION
)
REFUSALS: Final = (
    "credentials_missing", "credentials_invalid", "scope_missing", "foreign_origin", "not_found", "method_not_allowed",
    "rate_limited", "unavailable",
)  # fmt: skip
SHARED: Final[dict[str, Any]] = {"tags": ["streams"], "security": list(BEARER)}
ENDED: Final = {"description": "The mailbox has ended, and so has its stream: `EventSource` stops."}
NEW_MESSAGE: Final = (
    f'id: {POSITION}\nevent: new_message\ndata: {{"event":"new_message","message_id":"{MESSAGE}",'
    f'"from_address":"shop@example.org","subject":"Your code is 481516","received_at":"{AT}"}}\n\n'
)
RECEIVED: Final = (
    f'id: {POSITION}\nevent: message.received\ndata: {{"type":"message.received","mailboxId":"mbx_…",'
    f'"messageId":"{MESSAGE}","at":"2026-03-13T15:30:00.000Z"}}\n\n'
)


def paths() -> dict[str, Any]:
    """Path items of OpenAPI 3.1."""
    return {
        "/api/v1/mailboxes/{address}/events": {
            "get": {
                "operationId": "streamMailbox",
                "summary": "Watch an inbox",
                "description": "Server-sent events: `new_message` for each message once it can be read, `reset` where the id "
                "to resume from is too old or from elsewhere, `inbox.expired` at the end. Nothing is missed, nothing comes "
                "twice, over any number of reconnects.",
                "parameters": [ADDRESS_PARAMETER, *CREDENTIALS, AFTER, LAST_EVENT_ID],
                "responses": _answers(
                    _events("The inbox's events, from the given id or from now on.", NEW_MESSAGE), REFUSALS
                ),
                **SHARED,
            }
        },
        "/v1/events": {
            "get": {
                "operationId": "streamEvents",
                "summary": "Watch everything",
                "description": "Server-sent events over all mailboxes of an API key's account, or over the one of a session "
                "token: each named by its type, with ids only. `message.rejected` says its `reason`. A key with the scope "
                "`sends:read` sees its users' sends as well, one with `connections:read` their connections.",
                "parameters": [*CREDENTIALS, AFTER, LAST_EVENT_ID],
                "responses": _answers(_events("What happens, from the given id or from now on.", RECEIVED), REFUSALS),
                **SHARED,
            }
        },
        "/ws/inbox/{address}": {
            "get": {
                "operationId": "watchMailbox",
                "summary": "Watch an inbox over a WebSocket",
                "description": "The same events as JSON texts, each with the `id` to resume from; `ping` every 30 seconds. "
                "Whoever may not watch is refused with 403 before the connection is accepted.",
                "parameters": [ADDRESS_PARAMETER, *CREDENTIALS, AFTER],
                "responses": _answers(
                    {"101": {"description": "The connection is a WebSocket from now on."}},
                    ("forbidden", "upgrade_required", "rate_limited", "unavailable"),
                ),
                **SHARED,
            }
        },
    }


def _answers(good: dict[str, Any], refusals: tuple[str, ...]) -> dict[str, Any]:
    return good | {str(status): answer for status, answer in refusing(refusals).items()}


def _events(description: str, example: str) -> dict[str, Any]:
    content = {"text/event-stream": {"schema": TEXT, "example": example}}
    return {"200": {"description": description, "content": content}, "204": ENDED}
