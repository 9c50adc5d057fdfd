"""Which mailboxes there are: who owns one, its address, and when it ends."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.fields import Digest, Sealed
from domain.mailbox_events import (
    MailboxCreated,
    MailboxDeleted,
    MailboxExpired,
    MailboxExtended,
    MailboxPurged,
)
from projections.projection import Connection, Folded, Projection, columns, last_of_each
from schemas import topics

DDL: Final = """
create table mailboxes (
    mailbox text primary key,
    owner text not null,
    address_digest text not null unique,
    address text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    plan text not null,
    live_messages integer not null,
    token_version integer not null,
    ended text,
    ended_at timestamptz,
    partition integer not null,
    position bigint not null
);
create index mailboxes_owner on mailboxes (owner, position desc);
"""


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """One mailbox. `ended` is `deleted`, `expired`, `purged` or None; whether it is open also depends on the time."""

    mailbox: str
    owner: str
    address: Sealed
    created_at: datetime
    expires_at: datetime
    token_version: int
    ended: str | None
    partition: int
    position: int

    def open_at(self, now: datetime) -> bool:
        return self.ended is None and now < self.expires_at


ROW: Final = "mailbox, owner, address, created_at, expires_at, token_version, ended, partition, position"
Pool = asyncpg.Pool


async def _created(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (
            seen.event.mailbox,
            seen.event.owner,
            seen.event.address_digest,
            seen.event.address,
            seen.event.created_at,
            seen.event.expires_at,
            seen.event.plan,
            seen.event.limits.live_messages,
            seen.event.token_version,
            seen.partition,
            seen.position,
        )
        for seen in events
    ]
    await connection.execute(
        "insert into mailboxes (mailbox, owner, address_digest, address, created_at, expires_at, plan, live_messages, "
        "token_version, partition, position) select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], "
        "$5::timestamptz[], $6::timestamptz[], $7::text[], $8::int[], $9::int[], $10::int[], $11::bigint[])",
        *columns(rows),
    )


async def _extended(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [(seen.event.mailbox, seen.event.expires_at) for seen in last_of_each(events, lambda event: event.mailbox)]
    await connection.execute(
        "update mailboxes m set expires_at = e.at from unnest($1::text[], $2::timestamptz[]) as e(mailbox, at) "
        "where m.mailbox = e.mailbox",
        *columns(rows),
    )


async def _ended(connection: "Connection[Any]", events: list[Folded]) -> None:
    how = {MailboxDeleted: "deleted", MailboxExpired: "expired"}
    rows = [(seen.event.mailbox, how[type(seen.event)], seen.event.at) for seen in events]
    await connection.execute(
        "update mailboxes m set ended = e.ended, ended_at = e.at "
        "from unnest($1::text[], $2::text[], $3::timestamptz[]) as e(mailbox, ended, at) where m.mailbox = e.mailbox",
        *columns(rows),
    )


async def _purged(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute(
        "update mailboxes set ended = 'purged' where mailbox = any($1)", [seen.event.mailbox for seen in events]
    )


PROJECTION: Final = Projection(
    name="mailboxes",
    topic=topics.MAILBOX_EVENTS.name,
    tables=("mailboxes",),
    ddl=DDL,
    folds={
        (MailboxCreated,): _created,
        (MailboxExtended,): _extended,
        (MailboxDeleted, MailboxExpired): _ended,
        (MailboxPurged,): _purged,
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Found:
    """An open mailbox with its wrapped data key, None where that is gone, and whether the tables are up to date."""

    mailbox: str
    owner: str
    kid: str | None
    wrapped: bytes | None


async def open_by_address(pool: "Pool[Any]", address_digest: Digest) -> Found | None:
    """The mailbox that receives at this address now."""
    row = await pool.fetchrow(
        "select m.mailbox, m.owner, k.kid, k.wrapped from mailboxes m left join keyring k on k.subject = m.mailbox "
        "where m.address_digest = $1 and m.ended is null and m.expires_at > now()",
        address_digest,
    )
    return Found(*row) if row else None


async def by_address(pool: "Pool[Any]", address_digest: Digest) -> MailboxRow | None:
    """The mailbox at this address, ended ones included."""
    row = await pool.fetchrow(f"select {ROW} from mailboxes where address_digest = $1", address_digest)  # noqa: S608 - a constant
    return MailboxRow(*row) if row else None


@dataclass(frozen=True, slots=True)
class Readable:
    """A mailbox, ended ones included, with its wrapped data key (None where that is gone) and the next offset that the
    messages' projection will fold: what is shown at positions below it is what can be read now."""

    row: MailboxRow
    kid: str | None
    wrapped: bytes | None
    position: int


READABLE: Final = (
    "select m.mailbox, m.owner, m.address, m.created_at, m.expires_at, m.token_version, m.ended, m.partition, m.position, "
    "k.kid, k.wrapped, c.position from mailboxes m left join keyring k on k.subject = m.mailbox left join checkpoints c "
    "on c.name = 'messages' and c.topic = $2 and c.partition = m.partition where m.address_digest = $1"
)


async def readable(pool: "Pool[Any]", address_digest: Digest) -> Readable | None:
    """All that reading a mailbox's list takes, of one moment."""
    row = await pool.fetchrow(READABLE, address_digest, PROJECTION.topic)
    return Readable(MailboxRow(*row[:9]), row[9], row[10], row[11] or 0) if row else None


async def by_id(pool: "Pool[Any]", mailbox: str) -> MailboxRow | None:
    row = await pool.fetchrow(f"select {ROW} from mailboxes where mailbox = $1", mailbox)  # noqa: S608 - a constant
    return MailboxRow(*row) if row else None


async def open_of_owner(pool: "Pool[Any]", owner: str) -> list[MailboxRow]:
    """The owner's mailboxes that have not ended, newest first."""
    rows = await pool.fetch(
        f"select {ROW} from mailboxes where owner = $1 and ended is null and expires_at > now() order by position desc",  # noqa: S608 - a constant
        owner,
    )
    return [MailboxRow(*row) for row in rows]
