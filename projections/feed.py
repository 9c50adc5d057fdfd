"""What callers may watch: one thin row for each event that a stream tells of, in the order of the log."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from domain.fields import Sealed
from domain.mailbox_events import (
    MailboxCreated,
    MailboxDeleted,
    MailboxExpired,
    MailboxExtended,
    MailboxPurged,
    MessageDeleted,
    MessageParsed,
    MessageRead,
    MessageReceived,
    MessageRejected,
)
from projections.projection import Connection, Folded, Projection, insert
from schemas import topics

#: Days a row is kept for those who resume; older tokens hear `reset`.
KEPT_DAYS: Final = 30

DDL: Final = """
create table feed (
    partition integer not null,
    position bigint not null,
    topic text not null,
    owner text not null,
    mailbox text not null,
    message text,
    type text not null,
    at timestamptz not null,
    summary text,
    envelope text,
    reason text,
    primary key (topic, partition, position)
);
create index feed_mailbox on feed (mailbox, position);
create index feed_owner on feed (owner, topic, partition, position);
alter table feed alter summary set storage external, alter envelope set storage external;
"""

#: The name a stream gives to each event it tells of.
NAMES: Final[dict[type, str]] = {
    MailboxCreated: "mailbox.created",
    MailboxExtended: "mailbox.extended",
    MailboxDeleted: "mailbox.deleted",
    MailboxExpired: "mailbox.expired",
    MessageReceived: "message.received",
    MessageParsed: "message.received",
    MessageRead: "message.read",
    MessageDeleted: "message.deleted",
    MessageRejected: "message.rejected",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened; `summary` and `envelope` are sealed under the mailbox's key, where there are any.

    `reason` says why a message was rejected.
    """

    partition: int
    position: int
    topic: str
    owner: str
    mailbox: str
    message: str | None
    type: str
    at: datetime
    summary: Sealed | None
    envelope: Sealed | None
    reason: str | None = None


INSERTED: Final = {
    "partition": "int",
    "position": "bigint",
    "topic": "text",
    "owner": "text",
    "mailbox": "text",
    "message": "text",
    "type": "text",
    "at": "timestamptz",
    "summary": "text",
    "envelope": "text",
    "reason": "text",
}
ENTRY: Final = ", ".join(INSERTED)
Pool = asyncpg.Pool


def entry(seen: Folded | None) -> Entry | None:
    """What a stream tells of this event; None where it tells nothing (yet: a mail that is still being parsed)."""
    if seen is None:
        return None
    event = seen.event
    name = NAMES.get(type(event))
    if name is None or (isinstance(event, MessageReceived) and event.state == "parsing"):
        return None
    return Entry(
        seen.partition,
        seen.position,
        seen.topic,
        event.owner,
        event.mailbox,
        getattr(event, "message", None),
        name,
        seen.at,
        getattr(event, "summary", None),
        getattr(event, "envelope", None),
        event.reason if isinstance(event, MessageRejected) else None,
    )


async def _tell(connection: "Connection[Any]", events: list[Folded]) -> None:
    entries = [found for seen in events if (found := entry(seen))]
    if not entries:
        return
    until = _kept_from(entries[-1].at)
    too_old = [e for e in entries if e.at < until]
    rows = [
        (e.partition, e.position, e.topic, e.owner, e.mailbox, e.message, e.type, e.at, e.summary, e.envelope, e.reason)
        for e in (*too_old[-1:], *entries[len(too_old) :])
    ]
    await insert(connection, "feed", INSERTED, rows)
    await _let_go(connection, entries[-1].topic, entries[-1].partition, until)


def _kept_from(now: datetime) -> datetime:
    """Rows older than this are let go. By the log's time, in whole minutes: most batches find nothing to let go of."""
    return now.replace(second=0, microsecond=0) - timedelta(days=KEPT_DAYS)


async def _let_go(connection: "Connection[Any]", topic: str, partition: int, until: datetime) -> None:
    """Leaves the newest row that is too old: who resumes from before it has missed something, and hears `reset`.

    Reads only the rows it deletes and two more: time never steps back within a partition.
    """
    await connection.execute(
        "delete from feed where topic = $1 and partition = $2 and position < "
        "(select max(position) from feed where topic = $1 and partition = $2 and position < "
        "(select position from feed where topic = $1 and partition = $2 and at >= $3 order by position limit 1))",
        topic,
        partition,
        until,
    )


async def _purged(connection: "Connection[Any]", events: list[Folded]) -> None:
    """What happened stays told, for those who come back within thirty days; what was said can't be read any more."""
    await connection.execute(
        "update feed set summary = null, envelope = null where mailbox = any($1)",
        [seen.event.mailbox for seen in events],
    )


PROJECTION: Final = Projection(
    name="feed",
    topic=topics.MAILBOX_EVENTS.name,
    tables=("feed",),
    ddl=DDL,
    folds={tuple(NAMES): _tell, (MailboxPurged,): _purged},
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def of_mailbox(pool: "Pool[Any]", mailbox: str, *, since: int, limit: int) -> list[Entry]:
    """What happened to one mailbox at this position or later, in order."""
    rows = await pool.fetch(
        f"select {ENTRY} from feed where mailbox = $1 and position >= $2 order by position limit $3",  # noqa: S608 - a constant
        mailbox,
        since,
        limit,
    )
    return [Entry(*row) for row in rows]


async def of_owner(pool: "Pool[Any]", owner: str, topic: str, partition: int, *, since: int, limit: int) -> list[Entry]:
    """What happened to an owner's mailboxes in one partition, at this position or later, in order."""
    rows = await pool.fetch(
        f"select {ENTRY} from feed where owner = $1 and topic = $2 and partition = $3 and position >= $4 "  # noqa: S608 - a constant
        "order by position limit $5",
        owner,
        topic,
        partition,
        since,
        limit,
    )
    return [Entry(*row) for row in rows]
