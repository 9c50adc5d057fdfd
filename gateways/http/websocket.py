"""A mailbox's stream over a WebSocket: the same events as its SSE, one JSON text each, in the raw messages of ASGI."""

from collections.abc import Sequence
from typing import Any

import orjson

from gateways.http.endings import Ending
from gateways.http.frames import Told
from gateways.http.stream_measures import Kind


class InboxWebSocket:
    """What a mailbox's WebSocket says."""

    #: A ping every fourth turn of the one timer: 30 seconds.
    beats_every = 4
    opens_summaries = True
    kind: Kind = "websocket"

    def shows(self, told: Told) -> bool:
        return told.is_new_message or told.ends_as is not None

    def first(self, next_token: str | None) -> list[dict[str, Any]]:  # noqa: ARG002 - a handshake has no place for it
        return [{"type": "websocket.accept"}]

    def reset(self, next_token: str) -> dict[str, Any]:
        return _text({"event": "reset", "oldest": next_token, "id": next_token})

    def telling(self, told: Sequence[Told]) -> list[dict[str, Any]]:
        return [{"type": "websocket.send", "text": one.text()} for one in told if one.is_new_message]

    def beat(self) -> dict[str, Any]:
        return _text({"event": "ping"})

    def last(self, ending: Ending) -> list[dict[str, Any]]:
        farewell = [_text({"event": "inbox.expired", "reason": ending.reason})] if ending.reason is not None else []
        return [*farewell, {"type": "websocket.close", "code": ending.close_code}]


def _text(facts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "websocket.send", "text": orjson.dumps(facts).decode()}
