"""What streams tell of things whose events are keyed by a user: one thin row for each event, in the order of the log.

Sends and connections have a table each, since a row is fed by one topic; the columns are the same. An account's users stand
in many partitions, so every question names a place in each. Rows hold ids, states, times and codes: no erasure needs them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from projections.feed import KEPT_DAYS
from projections.projection import Connection

COLUMNS: Final = {
    "partition": "int",
    "position": "bigint",
    "owner": "text",
    "user_id": "text",
    "send": "text",
    "connection": "text",
    "type": "text",
    "status": "text",
    "at": "timestamptz",
    "next_at": "timestamptz",
    "code": "text",
}
ROW: Final = ", ".join(COLUMNS)
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class UserEntry:
    """One thing that happened to a send or to a connection of a user. `status` is what it is in from then on.

    `next_at`: when a send is tried next, where it waits for a time; `code`: why, where there is a reason to tell.
    """

    topic: str
    partition: int
    position: int
    owner: str
    user: str
    send: str | None
    connection: str | None
    type: str
    status: str
    at: datetime
    next_at: datetime | None
    code: str | None


def ddl(table: str) -> str:
    """The table of one topic."""
    return f"""
create table {table} (
    partition integer not null,
    position bigint not null,
    owner text not null,
    user_id text not null,
    send text,
    connection text,
    type text not null,
    status text not null,
    at timestamptz not null,
    next_at timestamptz,
    code text,
    primary key (partition, position)
);
create index {table}_owner on {table} (owner, partition, position);
"""


async def let_go(connection: "Connection[Any]", table: str, partition: int) -> None:
    """Lets go of rows that are older than is promised by the time of the newest, in whole minutes.

    As in `projections.feed` the newest of those that are too old stays: who resumes from before it hears `reset`.
    """
    await connection.execute(
        f"with newest as (select date_trunc('minute', at) - make_interval(hours => $2) as until from {table} "  # noqa: S608 - a name of our own
        "where partition = $1 order by position desc limit 1) "
        f"delete from {table} where partition = $1 and position < "
        f"(select max(position) from {table} where partition = $1 and position < "
        f"(select position from {table} where partition = $1 and at >= (select until from newest) "
        "order by position limit 1))",
        partition,
        KEPT_DAYS * 24,
    )


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def of_owner(
    pool: "Pool[Any]", table: str, topic: str, owner: str, *, since: Mapping[int, int], limit: int
) -> list[UserEntry]:
    """What happened to an account's users in these partitions, each from its position on; one partition after the other."""
    rows = await pool.fetch(
        f"select f.* from unnest($2::int[], $3::bigint[]) as w(number, since), lateral (select {ROW} from {table} "  # noqa: S608 - names of our own
        "where owner = $1 and partition = w.number and position >= w.since order by position limit $4) f "
        "order by f.partition, f.position limit $4",
        owner,
        list(since),
        list(since.values()),
        limit,
    )
    return [UserEntry(topic, *row) for row in rows]


async def at_positions(
    pool: "Pool[Any]", table: str, topic: str, partition: int, positions: Sequence[int]
) -> list[UserEntry]:
    """What is told of these positions of one partition, in order."""
    rows = await pool.fetch(
        f"select {ROW} from {table} where partition = $1 and position = any($2) order by position",  # noqa: S608 - names of our own
        partition,
        positions,
    )
    return [UserEntry(topic, *row) for row in rows]


async def oldest(pool: "Pool[Any]", table: str, owner: str) -> dict[int, int]:
    """The first position that is kept of an account, by partition."""
    rows = await pool.fetch(
        f"select partition, min(position) from {table} where owner = $1 group by partition",  # noqa: S608 - a name of our own
        owner,
    )
    return dict(map(tuple, rows))


async def is_too_old(pool: "Pool[Any]", table: str, since: Mapping[int, int]) -> bool:
    """Whether what stands at one of these places may no longer be kept: the next row there is too old to be promised."""
    at = await pool.fetchval(
        "select min(f.at) from unnest($1::int[], $2::bigint[]) as w(number, since), lateral (select at "  # noqa: S608 - a name of our own
        f"from {table} where partition = w.number and position >= w.since order by position limit 1) f",
        list(since),
        list(since.values()),
    )
    return at is not None and at < datetime.now(UTC) - timedelta(days=KEPT_DAYS)
