"""What is in the way of a rotation is said as it is: in a line of the log, or to whoever asked for it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateways.command_line.failures import Failed
from gateways.command_line.rotate_keys import rotate_keys
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.stores.key_care import keep_keys_young
from gateways.stores.key_rotation import Rotated, rotate
from gateways.stores.postgres import pooled
from projections.migrate import migrate
from tests.support.key_house import KeyHouse


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[KeyHouse]:
    await migrate(database)
    async with pooled(database, size=5) as pool:
        house = KeyHouse(pool, tmp_path / "keyset.json")
        await house.keyring.create_all([f"mbx_{number:02}" for number in range(30)])
        for number in range(10):
            await house.put(f"con_{number:02}")
        yield house


async def told(_: Rotated) -> None:
    """Whom it may concern has heard of a rotation."""


async def test_what_keeps_keys_from_being_rotated_is_said_in_a_line_and_no_traceback(house: KeyHouse, caplog) -> None:
    house.path.rename(away := house.path.with_name("away.json"))
    caring = asyncio.create_task(
        keep_keys_young(
            house.pool, house.keys, max_age=timedelta(0), report=told, first_look_seconds=0, look_seconds=0.02
        )
    )
    try:
        async with asyncio.timeout(10):
            while len(caplog.records) < 2:
                await asyncio.sleep(0.01)
        assert {record.getMessage() for record in caplog.records} == {"rotating keys waits"}
        assert not any(record.exc_info for record in caplog.records)
        assert "can't be read (No such file or directory)" in caplog.records[0].cause
        away.rename(house.path)
        async with asyncio.timeout(20):
            while "back up the keyset file" not in caplog.text:
                await asyncio.sleep(0.05)
    finally:
        caring.cancel()
        await asyncio.gather(caring, return_exceptions=True)


@pytest.mark.parametrize(("error", "code"), [(NotPromised("Kafka is away"), 1), (OutcomeUnknown("late"), 4)])
async def test_what_the_log_does_not_take_is_not_said_to_have_changed_nothing(
    house: KeyHouse, capsys, monkeypatch, error: Exception, code: int
) -> None:
    monkeypatch.setitem(rotate.__kwdefaults__, "settle_seconds", 0.0)

    async def refused(_: Rotated) -> None:
        raise error

    with pytest.raises(Failed, match="Every data key is wrapped by the new key, but the log") as failed:
        await rotate_keys(house.pool, house.keys, house.keyset, report=refused)
    assert failed.value.code == code
    assert "Back up the keyset file now" in capsys.readouterr().err
    assert await house.kids() == {"keyring": {house.keyset.primary}, "vault": {house.keyset.primary}}
    heard: list[Rotated] = []

    async def taken(done: Rotated) -> None:
        heard.append(done)

    key = house.keyset.primary
    await rotate_keys(house.pool, house.keys, house.keyset, report=taken)
    assert [(done.key, done.rows) for done in heard] == [(key, 40)]
