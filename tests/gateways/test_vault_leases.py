"""A connection's lease is one holder's at a time, over all processes; who lost it changes nothing (D-07)."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateways.stores.postgres import pooled
from projections.migrate import migrate
from tests.support.key_house import KeyHouse, tokens
from tests.support.own_child import OwnChild

PROCESS = Path(__file__).parents[1] / "support" / "lease_process.py"


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[KeyHouse]:
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield KeyHouse(pool, tmp_path / "keyset.json")


async def test_of_fifty_that_want_one_at_once_one_gets_it(house: KeyHouse, database: str) -> None:
    await house.put("con_1")
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(pooled(database, size=5)) for _ in range(5)]
        vaults = [KeyHouse(pool, house.path).vault for pool in pools]
        for round_ in range(5):
            names = [f"{round_}/{number}" for number in range(50)]
            got = await asyncio.gather(
                *[vaults[number % 5].lease(["con_1"], seconds=30, holder=name) for number, name in enumerate(names)]
            )
            winners = [name for name, held in zip(names, got, strict=True) if held]
            assert len(winners) == 1
            await house.vault.release("con_1", holder=winners[0])


async def test_processes_share_what_is_free_and_no_two_have_the_same(house: KeyHouse, database: str) -> None:
    connections = [f"con_{number:03}" for number in range(100)]
    for connection in connections:
        await house.put(connection)
    told = {"database": database, "keyset": str(house.path), "connections": connections}
    children = await asyncio.gather(
        *[OwnChild.start("leases", [sys.executable, PROCESS], told=told | {"holder": f"p{n}"}) for n in range(4)]
    )
    for child in children:
        assert child.process.stdin is not None
        child.process.stdin.write(b"go\n")
    async with asyncio.timeout(20):
        got = [json.loads(await child.process.stdout.readline()) for child in children]  # type: ignore[union-attr]  # a pipe
    for child in children:
        await child.stop()
    assert sorted(connection for each in got for connection in each) == connections


async def test_a_lease_lapses_by_itself_and_whoever_had_it_can_switch_no_more(house: KeyHouse) -> None:
    await house.put("con_1")
    (slow,) = await house.vault.lease(["con_1"], seconds=0.3, holder="a")
    assert await house.vault.lease(["con_1"], seconds=30, holder="b") == []
    await asyncio.sleep(0.35)
    assert await house.vault.switch(slow, holder="a", secrets=tokens("late"), fingerprint="f") is None
    (held,) = await house.vault.lease(["con_1"], seconds=30, holder="b")
    assert held.secrets == tokens("con_1")
    assert await house.vault.switch(slow, holder="a", secrets=tokens("late"), fingerprint="f") is None
    assert await house.vault.switch(held, holder="b", secrets=tokens("new"), fingerprint="f") == 2
    assert await house.vault.switch(held, holder="b", secrets=tokens("twice"), fingerprint="f") is None
    now = await house.another().vault.get("con_1")
    assert now is not None
    assert now.secrets == tokens("new")


async def test_a_lease_can_be_ended_by_its_holder_only_now_or_later(house: KeyHouse) -> None:
    await house.put("con_1")
    assert await house.vault.lease(["con_1"], seconds=30, holder="a")
    await house.vault.release("con_1", holder="b")
    assert await house.vault.lease(["con_1"], seconds=30, holder="b") == []
    await house.vault.release("con_1", holder="a", seconds=0.3)
    assert await house.vault.lease(["con_1"], seconds=30, holder="b") == []
    await asyncio.sleep(0.35)
    assert await house.vault.lease(["con_1"], seconds=30, holder="b")


async def test_who_leases_waits_for_nobodys_row(house: KeyHouse) -> None:
    for connection in ("con_1", "con_2"):
        await house.put(connection)
    async with house.pool.acquire() as other, other.transaction():
        await other.execute("select 1 from vault where connection = 'con_1' for update")
        async with asyncio.timeout(2):
            held = await house.vault.lease(["con_1", "con_2"], seconds=30, holder="a")
    assert [one.connection for one in held] == ["con_2"]
