"""What arrives together is written together, and everybody hears of it."""

import asyncio

import pytest

from gateways.stores.gathered import Gathered
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import open_keyset
from gateways.stores.postgres import pooled
from projections.migrate import migrate


async def test_what_comes_while_a_write_is_under_way_goes_into_the_next_one() -> None:
    batches, go_on = [], asyncio.Event()

    async def write(rows: list[int]) -> None:
        batches.append(rows)
        await go_on.wait()

    gathered = Gathered(write)
    first = asyncio.create_task(gathered.add(1))
    while not batches:
        await asyncio.sleep(0)
    others = [asyncio.create_task(gathered.add(number)) for number in range(2, 6)]
    await asyncio.sleep(0)
    assert not first.done()
    go_on.set()
    await asyncio.gather(first, *others)
    assert batches == [[1], [2, 3, 4, 5]]


async def test_everybody_in_a_failed_write_hears_it_and_the_next_one_is_tried() -> None:
    async def write(rows: list[int]) -> None:
        if 1 in rows:
            raise OSError("the disk is full")

    gathered = Gathered(write)
    failed = await asyncio.gather(gathered.add(1), gathered.add(2), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError, OSError]
    await gathered.add(3)


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
