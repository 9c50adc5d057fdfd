"""Server-sent events (WHATWG HTML 9.2) in the raw messages of ASGI.

The first bytes carry `retry` and, where the stream begins with what comes from now on, an `id` without data: a browser
that loses the connection before the first event resumes from there all the same.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateways.http.endings import Ending
from gateways.http.frames import Told, sse_frame
from gateways.http.stream_measures import Kind

#: Milliseconds a browser waits before it connects again.
RETRY_MS: Final = 2000
HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
BEAT: Final = {"type": "http.response.body", "body": b":\n\n", "more_body": True}


class InboxSse:
    """A mailbox's own stream: its new messages, and its end."""

    #: Of the turns of the one timer, every so-manieth is a sign of life.
    beats_every = 1
    opens_summaries = True
    kind: Kind = "inbox_sse"

    def shows(self, told: Told) -> bool:
        return told.is_new_message or told.ends_as is not None

    def first(self, next_token: str | None) -> list[dict[str, Any]]:
        begin = b"retry: %d\n" % RETRY_MS
        if next_token is not None:
            begin += b"id: %s\n" % next_token.encode()
        return [{"type": "http.response.start", "status": 200, "headers": HEADERS}, _body(begin + b"\n")]

    def reset(self, next_token: str) -> dict[str, Any]:
        facts = orjson.dumps({"event": "reset", "oldest": next_token})
        return _body(sse_frame("reset", facts, next_token))

    def telling(self, told: Sequence[Told]) -> list[dict[str, Any]]:
        return _in_one(one.sse() for one in told if one.is_new_message)

    def beat(self) -> dict[str, Any]:
        return BEAT

    def last(self, ending: Ending) -> list[dict[str, Any]]:
        farewell = b""
        if ending.reason is not None:
            facts = orjson.dumps({"event": "inbox.expired", "reason": ending.reason})
            farewell = b"event: inbox.expired\ndata: %s\n\n" % facts
        if ending.retry_ms is not None:
            farewell += b"retry: %d\n\n" % ending.retry_ms
        return [{"type": "http.response.body", "body": farewell, "more_body": False}]


class AllSse(InboxSse):
    """The stream over all that a caller may see: every event, by its type."""

    opens_summaries = False
    kind: Kind = "all_sse"

    def shows(self, told: Told) -> bool:  # noqa: ARG002 - another wire shows a part only
        return True

    def telling(self, told: Sequence[Told]) -> list[dict[str, Any]]:
        return _in_one(one.all_sse(one.next_token) for one in told)


class AccountSse(AllSse):
    """The same over a whole account, where a token names more than the event's own place."""

    def telling(self, told: Sequence[Told]) -> list[dict[str, Any]]:
        return _in_one(one.account_sse() for one in told)

    def telling_at(self, told: Sequence[tuple[Told, str]]) -> list[dict[str, Any]]:
        return _in_one(one.all_sse(next_token) for one, next_token in told)


def _in_one(frames: Any) -> list[dict[str, Any]]:
    body = b"".join(frames)
    return [_body(body)] if body else []


def _body(content: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": True}
