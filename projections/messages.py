"""The messages of each mailbox, as they can be read: shown once, whole, in the order of the log."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.fields import Sealed
from domain.mailbox_events import (
    MailboxDeleted,
    MailboxExpired,
    MailboxPurged,
    MessageDeleted,
    MessageParsed,
    MessageRead,
    MessageReceived,
)
from projections.projection import Connection, Folded, Projection, columns, insert
from schemas import topics

DDL: Final = """
create table messages (
    message text primary key,
    mailbox text not null,
    number integer not null,
    received_at timestamptz not null,
    size bigint not null,
    sha256 text not null,
    via text not null,
    envelope text not null,
    state text not null,
    summary text,
    content text,
    content_blob text,
    has_attachments boolean not null,
    raw_partition integer not null,
    raw_offset bigint not null,
    raw_blob text,
    is_read boolean not null default false,
    partition integer not null,
    position bigint not null,
    shown_at bigint
);
alter table messages alter content set storage external, alter summary set storage external;
create index messages_shown on messages (mailbox, shown_at desc);
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as lists show it; `summary` is sealed, None where the mail could not be parsed."""

    message: str
    summary: Sealed | None
    envelope: Sealed
    received_at: datetime
    is_read: bool
    has_attachments: bool
    shown_at: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A message with everything that is known of it."""

    message: str
    mailbox: str
    received_at: datetime
    size: int
    sha256: str
    envelope: Sealed
    state: str
    summary: Sealed | None
    content: Sealed | None
    content_blob: str | None
    raw_partition: int
    raw_offset: int
    raw_blob: str | None
    is_read: bool


LISTED: Final = "message, summary, envelope, received_at, is_read, has_attachments, shown_at"
WHOLE: Final = (
    "message, mailbox, received_at, size, sha256, envelope, state, summary, content, content_blob, raw_partition, "
    "raw_offset, raw_blob, is_read"
)
INSERTED: Final = {
    "message": "text",
    "mailbox": "text",
    "number": "int",
    "received_at": "timestamptz",
    "size": "bigint",
    "sha256": "text",
    "via": "text",
    "envelope": "text",
    "state": "text",
    "summary": "text",
    "content": "text",
    "content_blob": "text",
    "has_attachments": "bool",
    "raw_partition": "int",
    "raw_offset": "bigint",
    "raw_blob": "text",
    "partition": "int",
    "position": "bigint",
    "shown_at": "bigint",
}
Pool = asyncpg.Pool


async def _received(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (
            seen.event.message,
            seen.event.mailbox,
            seen.event.number,
            seen.event.received_at,
            seen.event.size,
            seen.event.sha256,
            seen.event.via,
            seen.event.envelope,
            seen.event.state,
            seen.event.summary,
            seen.event.content,
            seen.event.content_blob,
            seen.event.has_attachments,
            seen.event.raw.partition,
            seen.event.raw.offset,
            seen.event.raw.blob,
            seen.partition,
            seen.position,
            None if seen.event.state == "parsing" else seen.position,
        )
        for seen in events
    ]
    await insert(connection, "messages", INSERTED, rows)


async def _parsed(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (
            seen.event.message,
            seen.event.state,
            seen.event.summary,
            seen.event.content,
            seen.event.content_blob,
            seen.event.has_attachments,
            seen.position,
        )
        for seen in events
    ]
    await connection.execute(
        "update messages m set state = e.state, summary = e.summary, content = e.content, content_blob = e.content_blob, "
        "has_attachments = e.has_attachments, shown_at = e.position from unnest($1::text[], $2::text[], $3::text[], "
        "$4::text[], $5::text[], $6::bool[], $7::bigint[]) "
        "as e(message, state, summary, content, content_blob, has_attachments, position) where m.message = e.message",
        *columns(rows),
    )


async def _read(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute(
        "update messages set is_read = true where message = any($1)", [seen.event.message for seen in events]
    )


async def _deleted(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute("delete from messages where message = any($1)", [seen.event.message for seen in events])


async def _mailbox_ended(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute("delete from messages where mailbox = any($1)", [seen.event.mailbox for seen in events])


PROJECTION: Final = Projection(
    name="messages",
    topic=topics.MAILBOX_EVENTS.name,
    tables=("messages",),
    ddl=DDL,
    folds={
        (MessageReceived,): _received,
        (MessageParsed,): _parsed,
        (MessageRead,): _read,
        (MessageDeleted,): _deleted,
        (MailboxDeleted, MailboxExpired, MailboxPurged): _mailbox_ended,
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def newest(pool: "Pool[Any]", mailbox: str, *, before: int, limit: int, offset: int) -> list[Listed]:
    """What a list shows at a position: newest first, what is still being parsed left out."""
    rows = await pool.fetch(
        f"select {LISTED} from messages where mailbox = $1 and shown_at < $4 "  # noqa: S608 - a constant
        "order by shown_at desc limit $2 offset $3",
        mailbox,
        limit,
        offset,
        before,
    )
    return [Listed(*row) for row in rows]


async def whole(pool: "Pool[Any]", mailbox: str, message: str) -> Whole | None:
    """One visible message of this mailbox."""
    row = await pool.fetchrow(
        f"select {WHOLE} from messages where message = $1 and mailbox = $2 and shown_at is not null",  # noqa: S608 - a constant
        message,
        mailbox,
    )
    return Whole(*row) if row else None
