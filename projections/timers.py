"""What has to happen at a moment: a row for each, until it has happened (DESIGN 4, rule 8)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from domain.mailbox_events import MailboxCreated, MailboxDeleted, MailboxExpired, MailboxExtended, MailboxPurged
from projections.projection import Connection, Folded, Projection, columns, last_of_each
from schemas import topics

#: How long after its end a mailbox's data key and blobs are destroyed.
PURGE_AFTER: Final = timedelta(days=7)

DDL: Final = """
create table timers (
    timer text primary key,
    kind text not null,
    due timestamptz not null,
    subject text not null,
    key text not null
);
create index timers_due on timers (due);
"""


@dataclass(frozen=True, slots=True)
class Timer:
    """`kind` is `expire` or `purge`; `subject` the mailbox; `key` what its commands are keyed by."""

    timer: str
    kind: str
    due: datetime
    subject: str
    key: str


async def _set(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (f"expire/{seen.event.mailbox}", "expire", seen.event.expires_at, seen.event.mailbox, seen.key)
        for seen in last_of_each(events, lambda event: event.mailbox)
    ]
    await _put(connection, rows)


async def _ended(connection: "Connection[Any]", events: list[Folded]) -> None:
    await _drop(connection, [f"expire/{seen.event.mailbox}" for seen in events])
    rows = [
        (f"purge/{seen.event.mailbox}", "purge", seen.event.at + PURGE_AFTER, seen.event.mailbox, seen.key)
        for seen in events
    ]
    await _put(connection, rows)


async def _purged(connection: "Connection[Any]", events: list[Folded]) -> None:
    await _drop(connection, [f"purge/{seen.event.mailbox}" for seen in events])


async def _put(connection: "Connection[Any]", rows: list[tuple[str, str, datetime, str, str]]) -> None:
    await connection.execute(
        "insert into timers (timer, kind, due, subject, key) "
        "select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[]) "
        "on conflict (timer) do update set due = excluded.due",
        *columns(rows),
    )


async def _drop(connection: "Connection[Any]", timers: list[str]) -> None:
    await connection.execute("delete from timers where timer = any($1)", timers)


PROJECTION: Final = Projection(
    name="timers",
    topic=topics.MAILBOX_EVENTS.name,
    tables=("timers",),
    ddl=DDL,
    folds={
        (MailboxCreated, MailboxExtended): _set,
        (MailboxDeleted, MailboxExpired): _ended,
        (MailboxPurged,): _purged,
    },
)
