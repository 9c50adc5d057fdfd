"""Sends: what was asked, what state each is in, each attempt at it, and when a timer has to look after it."""

from typing import Any, Final

from domain.send_events import (
    AttemptDeferred,
    AttemptFailed,
    AttemptInDoubt,
    AttemptStarted,
    AttemptSucceeded,
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
from projections.in_order import change_in_order
from projections.projection import Connection, Folded, Projection
from schemas import topics
from schemas.vocabulary import encode

DDL: Final = """
create table sends (
    send text primary key,
    user_id text not null,
    owner text not null,
    status text not null,
    message_id text not null,
    message text,
    blob text,
    callback text,
    attachments text[] not null,
    recipients integer not null,
    size integer not null,
    named text,
    connection text,
    provider text,
    created_at timestamptz not null,
    scheduled_at timestamptz,
    next_at timestamptz,
    sent_at timestamptz,
    ended_at timestamptz,
    code text,
    provider_message_id text,
    thread_id text,
    attempt integer not null,
    due timestamptz,
    due_kind text,
    partition integer not null,
    position bigint not null,
    key_digest text,
    body_digest text not null,
    traceparent text
);
create index sends_user on sends (user_id, send desc);
create index sends_owner on sends (owner, send desc);
create index sends_due on sends (due) where due is not null;
create index sends_open on sends (status) where status not in ('sent', 'failed', 'cancelled');
create index sends_waiting on sends (connection) where status in ('queued', 'deferred');
create index sends_scheduled on sends (user_id) where status = 'scheduled';
create index sends_key on sends (key_digest) where key_digest is not null;
create table send_attempts (
    send text not null,
    number integer not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    outcome text not null,
    code text,
    counted boolean,
    said text,
    refused text,
    primary key (send, number)
);
alter table sends alter message set storage external
"""


async def _fold(connection: "Connection[Any]", events: list[Folded]) -> None:
    """One event after the other: a send goes from state to state and back, and the order of its life is the log's."""
    changes = ((seen.event.send, *statement) for seen in events for statement in _statements(seen))
    await change_in_order(connection, changes)


REQUESTED: Final = """
insert into sends (send, user_id, owner, status, message_id, message, blob, callback, attachments, recipients, size, named,
    connection, created_at, scheduled_at, next_at, attempt, due, due_kind, partition, position, key_digest,
    body_digest, traceparent)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $14, 0, $14,
    case when $14::timestamptz is null then null else 'start' end, $15, $16, $17, $18, $19)
"""
MOVED: Final = "update sends set scheduled_at = $2, next_at = $2, due = $2 where send = $1"
DISPATCHED: Final = """
update sends set status = 'queued', connection = $2, provider = $3, next_at = null, due = $4, due_kind = 'start'
where send = $1
"""
STARTED: Final = """
update sends set status = 'sending', attempt = $2, next_at = null, due = $3, due_kind = 'doubt' where send = $1
"""
ATTEMPTED: Final = "insert into send_attempts (send, number, started_at, outcome) values ($1, $2, $3, 'running')"
ATTEMPT_ENDED: Final = """
update send_attempts set ended_at = $3, outcome = $4, code = $5, counted = $6, said = coalesce($7, said), refused = $8
where send = $1 and number = $2
"""
DEFERRED: Final = """
update sends set status = 'deferred', code = $2, next_at = $3, due = $4, due_kind = 'start', ended_at = null where send = $1
"""
IN_DOUBT: Final = "update sends set code = $2, due = $3, due_kind = 'doubt' where send = $1"
SENT: Final = """
update sends set status = 'sent', code = null, next_at = null, due = null, due_kind = null, sent_at = $2, ended_at = $2,
    provider_message_id = $3, thread_id = $4 where send = $1
"""
ENDED: Final = """
update sends set status = $2, code = $3, next_at = null, due = null, due_kind = null, ended_at = $4 where send = $1
"""
REDRIVEN: Final = """
update sends set status = 'queued', code = null, ended_at = null, traceparent = coalesce($2, traceparent) where send = $1
"""

Statement = tuple[str, tuple[Any, ...]]
ENDS: Final[dict[type, str]] = {SendFailed: "failed", SendDeadLettered: "dead_lettered", SendUncertain: "uncertain"}


def _statements(seen: Folded) -> list[Statement]:  # noqa: PLR0911 - one return for each event
    event = seen.event
    match event:
        case SendRequested():
            return [(REQUESTED, _requested(seen))]
        case SendMoved():
            return [(MOVED, (event.send, event.scheduled_at))]
        case SendDispatched():
            return [(DISPATCHED, (event.send, event.connection, event.provider, event.overdue_at))]
        case SendRedriven():
            return [(REDRIVEN, (event.send, seen.traceparent))]
        case SendSent():
            return [(SENT, (event.send, seen.at, event.provider_message_id, event.thread_id))]
        case SendCancelled():
            return [(ENDED, (event.send, "cancelled", None if event.by == "caller" else event.by, seen.at))]
        case SendFailed() | SendDeadLettered() | SendUncertain():
            return [(ENDED, (event.send, ENDS[type(event)], event.code, seen.at))]
        case _:
            return _of_attempt(seen)


def _of_attempt(seen: Folded) -> list[Statement]:
    event = seen.event
    match event:
        case AttemptStarted():
            return [
                (STARTED, (event.send, event.attempt, event.deadline)),
                (ATTEMPTED, (event.send, event.attempt, seen.at)),
            ]
        case AttemptDeferred():
            deferred = (event.send, event.code, event.next_at, event.overdue_at)
            return [(DEFERRED, deferred), _ended(seen, "deferred", event.code, counted=event.counted)]
        case AttemptInDoubt():
            return [(IN_DOUBT, (event.send, event.code, event.until)), _ended(seen, "in_doubt", event.code)]
        case AttemptSucceeded():
            return [_ended(seen, "accepted", None, counted=True)]
        case AttemptFailed():
            return [_ended(seen, "failed", event.code, counted=event.counted)]
        case _:
            raise TypeError(type(event).__name__)


def _ended(seen: Folded, outcome: str, code: str | None, *, counted: bool | None = None) -> Statement:
    event = seen.event
    refused = getattr(event, "refused", None)
    return ATTEMPT_ENDED, (
        event.send,
        event.attempt,
        seen.at,
        outcome,
        code,
        counted,
        getattr(event, "said", None),
        encode(refused).decode() if refused else None,
    )


def _requested(seen: Folded) -> tuple[Any, ...]:
    event = seen.event
    return (
        event.send,
        event.user,
        event.owner,
        "scheduled" if event.scheduled_at else "queued",
        event.message_id,
        event.message,
        event.blob,
        event.callback,
        event.attachments,
        event.recipients,
        event.size,
        event.connection,
        seen.at,
        event.scheduled_at,
        seen.partition,
        seen.position,
        event.key,
        event.body,
        seen.traceparent,
    )


PROJECTION: Final = Projection(
    name="sends",
    topic=topics.SEND_EVENTS.name,
    tables=("sends", "send_attempts"),
    ddl=DDL,
    folds={
        (
            SendRequested,
            SendMoved,
            SendDispatched,
            AttemptStarted,
            AttemptDeferred,
            AttemptInDoubt,
            AttemptSucceeded,
            AttemptFailed,
            SendSent,
            SendCancelled,
            SendFailed,
            SendDeadLettered,
            SendUncertain,
            SendRedriven,
        ): _fold,
    },
)
