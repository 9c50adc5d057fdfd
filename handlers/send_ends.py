"""Counts how sends end, by provider: whoever has the log's partition counts for all, and nothing else follows from it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from domain.send_events import SendCancelled, SendDeadLettered, SendFailed, SendSent, SendUncertain
from handlers.effector import Effect
from schemas import events, topics
from schemas.envelope import Record, moment

NAME: Final = "send-ends"
ENDS: Final[dict[type, str]] = {
    SendSent: "sent",
    SendFailed: "failed",
    SendDeadLettered: "dead_lettered",
    SendUncertain: "uncertain",
    SendCancelled: "cancelled",
}
#: What is read later than this after it happened is history, and would show as a rate that nobody had.
RECENT: Final = timedelta(hours=1)


class FindsProviders(Protocol):
    async def provider_of(self, send: str) -> str | None:
        """By which provider the send was to go out; None where none was chosen, or nobody knows."""
        ...


class Measures(Protocol):
    def ended(self, provider: str | None, status: str, code: str | None) -> None: ...


class CountingEnds:
    """What the effect needs. After a crash it may count what it has counted."""

    def __init__(self, sends: FindsProviders, measures: Measures) -> None:
        self._sends = sends
        self._measures = measures

    async def act(self, event: Any, record: Record) -> None:
        if datetime.now(UTC) - moment(record.timestamp_ms) > RECENT:
            return
        provider = getattr(event, "provider", None) or await self._sends.provider_of(event.send)
        code = event.by if isinstance(event, SendCancelled) else getattr(event, "code", None)
        self._measures.ended(provider, ENDS[type(event)], code)


def effect(counting: CountingEnds) -> Effect:
    """Acts on sends that have ended."""
    return Effect(NAME, topics.SEND_EVENTS.name, events.SEND, tuple(ENDS), counting.act)
