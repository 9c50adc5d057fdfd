"""Attachments of users: what can be named by a send, and when the time of what no send has named is over."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from domain.attachments import AttachmentDeleted, AttachmentStored, AttachmentUsed
from domain.fields import Sealed
from domain.users import UserDeleted
from projections.projection import Connection, Folded, Projection, columns
from schemas import topics

DDL: Final = """
create table attachments (
    attachment text primary key,
    user_id text not null,
    account text not null,
    blob text not null,
    size bigint not null,
    sha256 text not null,
    mime text not null,
    name text,
    created_at timestamptz not null,
    expires_at timestamptz,
    due_at timestamptz,
    deleted_at timestamptz,
    partition integer not null,
    position bigint not null
);
create index attachments_account on attachments (account, position desc) where deleted_at is null;
create index attachments_user on attachments (user_id, position desc);
create index attachments_due on attachments (due_at) where due_at is not null;
"""
ROW: Final = "attachment, user_id, account, blob, size, sha256, mime, name, created_at, partition, position"
#: What can be seen and named: by the clock, whether or not its end has been said yet.
LIVE: Final = "deleted_at is null and (expires_at is null or expires_at > now())"
#: A send that was asked for in an attachment's last moment names it a little later: so long its end is not said.
LONGEST_GRACE: Final = timedelta(hours=1)
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """One attachment; `name` is sealed under the user's data key, as are the bytes in the blob."""

    attachment: str
    user: str
    account: str
    blob: str
    size: int
    sha256: str
    mime: str
    name: Sealed
    created_at: datetime
    partition: int
    position: int


async def _stored(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (
            seen.event.attachment,
            seen.event.user,
            seen.event.account,
            seen.event.blob,
            seen.event.size,
            seen.event.sha256,
            seen.event.mime,
            seen.event.name,
            seen.at,
            seen.partition,
            seen.position,
            seen.event.expires_at,
            seen.event.expires_at + min(LONGEST_GRACE, max(seen.event.expires_at - seen.at, timedelta()) / 10),
        )
        for seen in events
    ]
    await connection.execute(
        f"insert into attachments ({ROW}, expires_at, due_at) select * from unnest($1::text[], $2::text[], $3::text[], "  # noqa: S608 - names of our own
        "$4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::timestamptz[], $10::int[], $11::bigint[], "
        "$12::timestamptz[], $13::timestamptz[])",
        *columns(rows),
    )


async def _used(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute(
        "update attachments set expires_at = null, due_at = null where attachment = any($1)",
        [seen.event.attachment for seen in events],
    )


async def _deleted(connection: "Connection[Any]", events: list[Folded]) -> None:
    """It keeps its name unless it was erased: a send may have it, also one that had yet to be noted, and shows the name."""
    await connection.execute(
        "update attachments a set deleted_at = e.at, expires_at = null, due_at = null, "
        "name = case when not e.erased then a.name end from unnest($1::text[], $2::timestamptz[], $3::bool[]) "
        "as e(attachment, at, erased) where a.attachment = e.attachment",
        *columns([(seen.event.attachment, seen.at, seen.event.by == "erasure") for seen in events]),
    )


async def _user_deleted(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute(
        "update attachments a set deleted_at = coalesce(a.deleted_at, e.at), expires_at = null, due_at = null, name = null "
        "from unnest($1::text[], $2::timestamptz[]) as e(user_id, at) where a.user_id = e.user_id",
        *columns([(seen.event.user, seen.at) for seen in events]),
    )


PROJECTION: Final = Projection(
    name="attachments",
    topic=topics.ACCOUNT_EVENTS.name,
    tables=("attachments",),
    ddl=DDL,
    folds={
        (AttachmentStored,): _stored,
        (AttachmentUsed,): _used,
        (AttachmentDeleted,): _deleted,
        (UserDeleted,): _user_deleted,
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def by_id(pool: "Pool[Any]", account: str, attachment: str) -> AttachmentRow | None:
    """The account's attachment of this id."""
    row = await pool.fetchrow(
        f"select {ROW} from attachments where attachment = $1 and account = $2 and {LIVE}",  # noqa: S608 - names of our own
        attachment,
        account,
    )
    return AttachmentRow(*row) if row else None


async def kept(pool: "Pool[Any]", attachment: str) -> AttachmentRow | None:
    """The attachment of this id, also where it was deleted, for a send may have it; None where it was erased."""
    row = await pool.fetchrow(
        f"select {ROW} from attachments where attachment = $1 and name is not null",  # noqa: S608 - names of our own
        attachment,
    )
    return AttachmentRow(*row) if row else None


async def of_user(pool: "Pool[Any]", account: str, user: str, attachments: list[str]) -> list[AttachmentRow]:
    """Those of these that are this user's and can be named by a send, in the order they are asked for."""
    rows = await pool.fetch(
        f"select {ROW} from attachments where attachment = any($1) and account = $2 and user_id = $3 and {LIVE}",  # noqa: S608 - names of our own
        attachments,
        account,
        user,
    )
    found = {row["attachment"]: AttachmentRow(*row) for row in rows}
    return [found[attachment] for attachment in dict.fromkeys(attachments) if attachment in found]


async def of_account(
    pool: "Pool[Any]", account: str, *, limit: int, user: str | None = None, before: int | None = None
) -> list[AttachmentRow]:
    """Attachments of the account, or of one user, the newest first: those whose position is below `before`."""
    rows = await pool.fetch(
        f"select {ROW} from attachments where account = $1 and {LIVE} and ($2::text is null or user_id = $2) "  # noqa: S608 - names of our own
        "and ($3::bigint is null or position < $3) order by position desc limit $4",
        account,
        user,
        before,
        limit,
    )
    return [AttachmentRow(*row) for row in rows]
