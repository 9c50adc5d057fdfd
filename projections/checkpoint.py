"""How far projections are: rows of `checkpoints`, moved in the transaction that changes what was folded."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from projections.projection import Connection
from schemas.topics import FOLDED_CHANNEL

HELD: Final = "select partition, position from kept.checkpoints where name = $1 and topic = $2 order by partition"


class MovedError(Exception):
    """A checkpoint is not where we left it: somebody else folds this partition too."""


async def of_partition(pool: "asyncpg.Pool[Any]", names: Sequence[str], topic: str, partition: int) -> dict[str, int]:
    """The next position of each projection in one partition; those that never were here begin at 0."""
    await pool.execute(
        "insert into kept.checkpoints (name, topic, partition, position) "
        "select name, $2, $3, 0 from unnest($1::text[]) as n(name) on conflict do nothing",
        names,
        topic,
        partition,
    )
    rows = await pool.fetch(
        "select name, position from kept.checkpoints where name = any($1) and topic = $2 and partition = $3",
        names,
        topic,
        partition,
    )
    return {row["name"]: row["position"] for row in rows}


async def advance(
    connection: "Connection[Any]", topic: str, partition: int, behind: Mapping[str, int], end: int
) -> None:
    """Moves these projections from where they were to `end` and announces it; raises MovedError."""
    moved = await connection.fetchval(
        "with moved as (update kept.checkpoints c set position = $4, at = now() "
        "from unnest($1::text[], $5::bigint[]) as w(name, position) "
        "where c.name = w.name and c.topic = $2 and c.partition = $3 and c.position = w.position returning c.name) "
        "select count(*), pg_notify($6, $2 || ' ' || $3 || ' ' || $4 || ' ' || array_to_string($1, ',')) from moved",
        list(behind),
        topic,
        partition,
        end,
        list(behind.values()),
        FOLDED_CHANNEL,
    )
    if moved != len(behind):
        raise MovedError


async def of_projection(connection: "Connection[Any]", name: str, topic: str, *, hold: bool = False) -> dict[int, int]:
    """The next position in each partition; with `hold` nobody else moves them before the transaction ends."""
    rows = await connection.fetch(f"{HELD} for update" if hold else HELD, name, topic)
    return {row["partition"]: row["position"] for row in rows}


async def move_up(connection: "Connection[Any]", name: str, topic: str, positions: Mapping[int, int]) -> None:
    """Makes these the next positions where they are further on than what is there, and announces it."""
    await connection.execute(
        "with given as (select * from unnest($3::int[], $4::bigint[]) as w(partition, position)), "
        "moved as (insert into kept.checkpoints as c (name, topic, partition, position) "
        "select $1, $2, partition, position from given "
        "on conflict (name, topic, partition) do update set position = excluded.position, at = now() "
        "where c.position < excluded.position returning c.partition, c.position) "
        "select pg_notify($5, $2 || ' ' || partition || ' ' || position || ' ' || $1) from moved",
        name,
        topic,
        list(positions),
        list(positions.values()),
        FOLDED_CHANNEL,
    )
