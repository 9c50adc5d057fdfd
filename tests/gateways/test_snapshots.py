"""Snapshots of deciders: what is asked for is found by index, and what is forgotten is exactly what stands within an id."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from gateways.stores.postgres import Pool, pooled
from gateways.stores.snapshots import BEGUN, LOCK, Snapshots
from projections.migrate import migrate
from schemas.snapshots import Checkpoint
from tests.support.waiting import until

Key = tuple[str, str]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrate(database)
    async with pooled(database) as pool:
        yield pool


class OneConnection:
    """Answers as a pool does, on one connection and so within its transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.fetch = connection.fetch

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        yield self._connection


@asynccontextmanager
async def in_transaction(pool: Pool) -> AsyncIterator[tuple[Snapshots, Any]]:
    """Snapshots that are committed at the end of the block, and the connection they are written on."""
    async with pool.acquire() as connection, connection.transaction(isolation="read_committed"):
        yield Snapshots(OneConnection(connection)), connection  # type: ignore[arg-type] # it answers as a pool does


async def one_waits_for_a_lock(pool: Pool) -> None:
    async def waits() -> bool:
        return await pool.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
        )

    await until(waits)


async def rows_touched(pool: Pool) -> int:
    """Rows of documents that this session has read, by index or not, whether or not they were wanted."""
    return await pool.fetchval(
        "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'decider_state'"
    )


async def test_a_young_table_is_read_and_written_by_index(pool: Pool) -> None:
    """It has no statistics yet: a planner that believes it to be nearly empty would read all of it for every key."""
    documents: dict[Key, bytes | None] = {("message", f"mbx_{number}/msg"): b"{}" for number in range(3000)}
    wanted = [("message", f"mbx_{number}/msg") for number in range(0, 6000, 60)]
    async with in_transaction(pool) as (snapshots, connection):
        await connection.execute("alter table decider_state set (autovacuum_enabled = false)")
        assert await snapshots.save("mailbox.v1", 0, Checkpoint(1, {}, 0), documents, [])
        before = await rows_touched(connection)
        end, found = await snapshots.read("mailbox.v1", 0, wanted)
        assert (end, len(found)) == (1, 50)
        assert await snapshots.save("mailbox.v1", 0, Checkpoint(2, {}, 0), {("mailbox", "mbx_1"): b"{}"}, [])
        assert await rows_touched(connection) - before <= len(wanted)


async def test_only_what_stands_within_an_id_is_forgotten(pool: Pool) -> None:
    snapshots = Snapshots(pool)
    within: list[Key] = [("message", "mbx_1/msg_a"), ("repeat", "mbx_1/zZ")]
    others: list[Key] = [
        ("mailbox", "mbx_1"),
        ("message", "mbx_10/msg"),
        ("message", "mbxA1/msg"),
        ("message", "mbx_1"),
    ]
    assert await snapshots.save("mailbox.v1", 0, Checkpoint(1, {}, 0), dict.fromkeys(within + others, b"{}"), [])
    assert await snapshots.save("mailbox.v1", 1, Checkpoint(1, {}, 0), dict.fromkeys(within, b"{}"), [])
    gone: dict[Key, bytes | None] = {("mailbox", "mbx_1"): None}
    assert await snapshots.save("mailbox.v1", 0, Checkpoint(2, {}, 0), gone, ["mbx_1"])
    _, left = await snapshots.read("mailbox.v1", 0, within + others)
    assert sorted(left) == sorted(others[1:])
    assert set((await snapshots.read("mailbox.v1", 1, within))[1]) == set(within)


async def test_an_older_snapshot_changes_nothing(pool: Pool) -> None:
    snapshots = Snapshots(pool)
    assert await snapshots.save("mailbox.v1", 0, Checkpoint(5, {}, 0), {("mailbox", "mbx_1"): b"{}"}, [])
    assert not await snapshots.save("mailbox.v1", 0, Checkpoint(4, {}, 0), {("mailbox", "mbx_1"): None}, ["mbx_1"])
    assert await snapshots.read("mailbox.v1", 0, [("mailbox", "mbx_1")]) == (5, {("mailbox", "mbx_1"): b"{}"})


@pytest.mark.parametrize("began_with", [0, 1], ids=["the first of all", "one of many"])
async def test_a_later_snapshot_removes_what_an_earlier_one_wrote_meanwhile(pool: Pool, began_with: int) -> None:
    """Two deciders of a partition save at once: what the earlier inserts was not there when the later one began."""
    gone: Key = ("mailbox", "mbx_1")
    within: Key = ("message", "mbx_1/msg")
    later = Snapshots(pool)
    for number in range(began_with):
        assert await later.save("mailbox.v1", 0, Checkpoint(number + 1, {}, 0), {}, [])

    async with in_transaction(pool) as (earlier, _):
        assert await earlier.save("mailbox.v1", 0, Checkpoint(5, {}, 0), {gone: b"{}", within: b"{}"}, [])
        saving = asyncio.create_task(later.save("mailbox.v1", 0, Checkpoint(6, {}, 0), {gone: None}, ["mbx_1"]))
        await one_waits_for_a_lock(pool)
    assert await saving
    assert await later.read("mailbox.v1", 0, [gone, within]) == (6, {})


async def test_an_earlier_snapshot_that_comes_later_changes_nothing(pool: Pool) -> None:
    kept: Key = ("mailbox", "mbx_1")

    async with in_transaction(pool) as (later, _):
        assert await later.save("mailbox.v1", 0, Checkpoint(6, {}, 0), {kept: b"{}"}, [])
        saving = asyncio.create_task(Snapshots(pool).save("mailbox.v1", 0, Checkpoint(5, {}, 0), {kept: None}, []))
        await one_waits_for_a_lock(pool)
    assert not await saving
    assert await Snapshots(pool).read("mailbox.v1", 0, [kept]) == (6, {kept: b"{}"})


async def test_a_process_that_freezes_with_the_lock_does_not_keep_it(pool: Pool) -> None:
    async with pool.acquire() as frozen:
        hanging = frozen.transaction()
        await hanging.start()
        await frozen.fetch(BEGUN, "mailbox.v1", 0)
        await frozen.fetch(LOCK, "mailbox.v1", 0)
        assert await Snapshots(pool).save("mailbox.v1", 0, Checkpoint(1, {}, 0), {}, [])
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await hanging.commit()
