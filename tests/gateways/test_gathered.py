"""What arrives together is written together, and everybody hears of it."""

import asyncio
from functools import partial

import pytest

from gateways.stores.gathered import Gathered
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import open_keyset
from gateways.stores.postgres import pooled
from projections import mailboxes
from projections.migrate import migrate


async def test_what_comes_while_a_write_is_under_way_goes_into_the_next_one() -> None:
    batches, go_on = [], asyncio.Event()

    async def write(rows: list[int]) -> list[int]:
        batches.append(rows)
        await go_on.wait()
        return [row * 10 for row in rows]

    gathered = Gathered(write)
    first = asyncio.create_task(gathered.add(1))
    while not batches:
        await asyncio.sleep(0)
    others = [asyncio.create_task(gathered.add(number)) for number in range(2, 6)]
    await asyncio.sleep(0)
    assert not first.done()
    go_on.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40, 50]
    assert batches == [[1], [2, 3, 4, 5]]


async def test_everybody_in_a_failed_write_hears_it_and_the_next_one_is_tried() -> None:
    async def write(rows: list[int]) -> list[int]:
        if 1 in rows:
            raise OSError("the disk is full")
        return rows

    gathered = Gathered(write)
    failed = await asyncio.gather(gathered.add(1), gathered.add(2), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError, OSError]
    assert await gathered.add(3) == 3


async def test_whoever_waits_behind_a_failure_is_not_kept_waiting_for_one_of_their_own() -> None:
    asked, silence = asyncio.Event(), asyncio.Event()

    async def ask(_: list[int]) -> list[int]:
        asked.set()
        await silence.wait()
        raise TimeoutError

    gathered = Gathered(ask)
    first = asyncio.create_task(gathered.add(1))
    await asked.wait()
    second = asyncio.create_task(gathered.add(2))
    await asyncio.sleep(0)
    asked.clear()
    silence.set()
    assert [type(error) for error in await asyncio.gather(first, second, return_exceptions=True)] == [TimeoutError] * 2
    assert not asked.is_set()


async def test_of_many_addresses_asked_for_together_each_finds_its_own_inbox(database: str) -> None:
    await migrate(database)
    async with pooled(database) as pool:
        await pool.execute(
            "insert into mailboxes (mailbox, owner, address_digest, address, created_at, expires_at, plan, "
            "live_messages, token_version, partition, position) select 'mbx_' || n, 'o', 'digest ' || n, '', now(), "
            "now() + case when n = 3 then interval '-1 s' else interval '1 h' end, 'free', 0, 1, 0, n "
            "from generate_series(1, 5) n"
        )
        gathered = Gathered(partial(mailboxes.open_by_addresses, pool))
        found = await asyncio.gather(*[gathered.add(f"digest {n}") for n in (5, 1, 9, 3, 1)])
        assert [inbox and inbox.mailbox for inbox in found] == ["mbx_5", "mbx_1", None, None, "mbx_1"]


async def test_fifty_data_keys_made_at_once_are_all_there_and_all_different(database: str, tmp_path) -> None:
    await migrate(database)
    async with pooled(database, size=2) as pool:
        keyring = Keyring(pool, open_keyset(tmp_path / "keyset.json"))
        subjects = [f"mbx_{number}" for number in range(50)]
        made = await asyncio.gather(*[keyring.create(subject) for subject in subjects])
        again = Keyring(pool, open_keyset(tmp_path / "keyset.json"))
        assert await again.get(subjects) == dict(zip(subjects, made, strict=True))
        assert len(set(made)) == 50


async def test_a_subject_has_one_data_key_for_ever(database: str, tmp_path) -> None:
    await migrate(database)
    async with pooled(database, size=2) as pool:
        keyring = Keyring(pool, open_keyset(tmp_path / "keyset.json"))
        made = await keyring.create("mbx_1")
        with pytest.raises(Exception, match="duplicate key"):
            await keyring.create("mbx_1")
        assert (await keyring.get(["mbx_1"]))["mbx_1"] == made
