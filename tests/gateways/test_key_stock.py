"""Data keys are there before they are asked for, nobody gets another's, and what is not used goes again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from gateways.stores.key_stock import KeyStock
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.postgres import Pool, pooled
from projections.migrate import migrate


@dataclass
class Ring:
    pool: Pool
    keyring: Keyring
    #: Another process's view of the same table.
    elsewhere: Keyring

    async def stored(self) -> set[str]:
        return {row["subject"] for row in await self.pool.fetch("select subject from keyring")}


@pytest.fixture
async def ring(database: str, tmp_path) -> AsyncIterator[Ring]:
    await migrate(database)
    keyset = open_keyset(tmp_path / "keyset.json")
    async with pooled(database, size=3) as pool:
        yield Ring(pool, Keyring(pool, LocalKeys(keyset)), Keyring(pool, LocalKeys(keyset)))


async def test_fifty_that_are_taken_at_once_are_all_different_and_all_stored(ring: Ring) -> None:
    stock = KeyStock(ring.keyring, full=8)
    taken = await asyncio.gather(*[stock.take() for _ in range(50)])
    assert await ring.elsewhere.get([mailbox for mailbox, _ in taken]) == dict(taken)
    assert len({mailbox for mailbox, _ in taken}) == len({key for _, key in taken}) == 50


async def test_what_is_in_stock_waits_for_nobody(ring: Ring) -> None:
    stock = KeyStock(ring.keyring, full=8)
    await stock.take()
    held = len(stock)
    async with ring.pool.acquire() as connection, connection.transaction():
        await connection.execute("lock table keyring in exclusive mode")
        async with asyncio.timeout(1):
            taken = [await stock.take() for _ in range(held)]
        waiting = asyncio.create_task(stock.take())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
    taken.append(await waiting)
    assert await ring.elsewhere.get([mailbox for mailbox, _ in taken]) == dict(taken)


async def test_what_is_not_used_is_destroyed_when_its_time_is_over_and_at_the_end(ring: Ring) -> None:
    stock = KeyStock(ring.keyring, full=8, kept_seconds=0.2)
    used, _ = await stock.take()
    assert len(await ring.stored()) > 1
    async with asyncio.timeout(10):
        while await ring.stored() != {used}:
            await asyncio.sleep(0.05)
    later, _ = await stock.take()
    await stock.close()
    assert await ring.stored() == {used, later}


async def test_everybody_who_waits_hears_why_there_is_none_and_the_next_one_is_served(ring: Ring) -> None:
    stock = KeyStock(ring.keyring, full=8)
    await ring.pool.execute("alter table keyring rename to hidden")
    heard = await asyncio.gather(*[stock.take() for _ in range(5)], return_exceptions=True)
    assert {type(error) for error in heard} == {asyncpg.UndefinedTableError}
    await ring.pool.execute("alter table hidden rename to keyring")
    mailbox, key = await stock.take()
    assert await ring.elsewhere.get([mailbox]) == {mailbox: key}


async def test_a_subject_has_one_data_key_for_ever(ring: Ring) -> None:
    made = await ring.keyring.create("mbx_1")
    with pytest.raises(asyncpg.UniqueViolationError):
        await ring.keyring.create("mbx_1")
    assert await ring.elsewhere.get(["mbx_1"]) == {"mbx_1": made}
