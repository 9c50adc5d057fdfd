"""What streams tell of sends: one row for each event that changes what state a send is in, or when it is tried next."""

from datetime import datetime
from typing import Any, Final

from domain.send_events import (
    AttemptDeferred,
    AttemptStarted,
    SendCancelled,
    SendDeadLettered,
    SendDispatched,
    SendFailed,
    SendMoved,
    SendRedriven,
    SendRequested,
    SendSent,
    SendUncertain,
)
from projections import user_feed
from projections.projection import Connection, Folded, Projection, insert
from schemas import topics

TABLE: Final = "send_feed"
#: The name a stream gives to each event it tells of, and the state that the send is in from then on.
TOLD: Final[dict[type, tuple[str, str]]] = {
    SendRequested: ("send.requested", "queued"),
    SendMoved: ("send.moved", "scheduled"),
    SendDispatched: ("send.queued", "queued"),
    AttemptStarted: ("send.sending", "sending"),
    AttemptDeferred: ("send.deferred", "deferred"),
    SendSent: ("send.sent", "sent"),
    SendFailed: ("send.failed", "failed"),
    SendCancelled: ("send.cancelled", "cancelled"),
    SendUncertain: ("send.uncertain", "uncertain"),
    SendDeadLettered: ("send.dead_lettered", "dead_lettered"),
    SendRedriven: ("send.redriven", "queued"),
}


async def _tell(connection: "Connection[Any]", events: list[Folded]) -> None:
    await insert(connection, TABLE, user_feed.COLUMNS, [_row(seen) for seen in events])
    await user_feed.let_go(connection, TABLE, events[-1].partition)


def _row(seen: Folded) -> tuple[Any, ...]:
    event = seen.event
    name, status = TOLD[type(event)]
    next_at = _next_at(event)
    return (
        seen.partition,
        seen.position,
        event.owner,
        event.user,
        event.send,
        getattr(event, "connection", None),
        name,
        "scheduled" if isinstance(event, SendRequested) and next_at else status,
        seen.at,
        next_at,
        _code(event),
    )


def _next_at(event: Any) -> datetime | None:
    match event:
        case SendRequested() | SendMoved():
            return event.scheduled_at
        case AttemptDeferred():
            return event.next_at
        case _:
            return None


def _code(event: Any) -> str | None:
    match event:
        case SendCancelled():
            return None if event.by == "caller" else event.by
        case _:
            return getattr(event, "code", None)


PROJECTION: Final = Projection(
    name=TABLE,
    topic=topics.SEND_EVENTS.name,
    tables=(TABLE,),
    ddl=user_feed.ddl(TABLE),
    folds={tuple(TOLD): _tell},
)
