"""Snapshots of deciders: what is asked for is found by index, and what is forgotten is exactly what stands within an id."""

from collections.abc import AsyncIterator

import pytest

from gateways.stores.postgres import Pool, pooled
from gateways.stores.snapshots import Snapshots
from projections.migrate import migrate
from schemas.snapshots import Checkpoint

Key = tuple[str, str]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrate(database)
    async with pooled(database) as pool:
        yield pool


async def rows_touched(pool: Pool) -> int:
    """Rows of documents that this session has read, by index or not, whether or not they were wanted."""
    return await pool.fetchval(
        "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'decider_state'"
    )


async def test_a_young_table_is_read_and_written_by_index(pool: Pool) -> None:
    """It has no statistics yet: a planner that believes it to be nearly empty would read all of it for every key."""
    documents: dict[Key, bytes | None] = {("message", f"mbx_{number}/msg"): b"{}" for number in range(3000)}
    wanted = [("message", f"mbx_{number}/msg") for number in range(0, 6000, 60)]
    async with pool.acquire() as connection, connection.transaction():
        snapshots = Snapshots(connection)  # type: ignore[arg-type] # a connection answers as a pool does
        await connection.execute("alter table decider_state set (autovacuum_enabled = false)")
        assert await snapshots.save("mailbox.v1", 0, Checkpoint(1, {}, 0), documents, [])
        before = await rows_touched(connection)  # type: ignore[arg-type] # as above
        end, found = await snapshots.read("mailbox.v1", 0, wanted)
        assert (end, len(found)) == (1, 50)
        assert await snapshots.save("mailbox.v1", 0, Checkpoint(2, {}, 0), {("mailbox", "mbx_1"): b"{}"}, [])
        assert await rows_touched(connection) - before <= len(wanted)  # type: ignore[arg-type] # as above


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
