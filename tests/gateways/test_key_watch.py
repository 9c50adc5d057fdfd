"""Whoever keeps the wrapping keys may be away: it is said, once, by whom and why, and no key is remembered for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateways.stores import remembered_keys
from gateways.stores.key_watch import KeyWatch
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import KeysUnreachable, LocalKeys
from gateways.stores.remembered_keys import RememberedKeys
from tests.support.key_house import Unreachable
from tests.support.waiting import until


def true(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """As `until` asks for it."""

    async def ask() -> bool:
        return holds()

    return ask


async def test_it_says_who_is_away_once_and_that_it_is_over(tmp_path: Path, caplog) -> None:
    keys = Unreachable(LocalKeys(open_keyset(tmp_path / "keyset.json")), KeysUnreachable("AWS KMS does not answer: no"))
    watch = KeyWatch(keys, look_seconds=0.01, again_seconds=0.01)
    caplog.set_level(logging.INFO)
    looking = asyncio.create_task(watch.run())
    try:
        await until(true(lambda: bool(caplog.records)))
        assert await watch.trouble() == "AWS KMS does not answer: no"
        await asyncio.sleep(0.1)
        assert [record.cause for record in caplog.records] == ["AWS KMS does not answer: no"]
        keys.down = False
        await until(true(lambda: len(caplog.records) == 2))
        assert await watch.trouble() is None
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def test_a_keyset_file_that_was_taken_away_is_trouble_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gateways.stores.keyset.LOOK_SECONDS", -1.0)
    keyset = open_keyset(tmp_path / "keyset.json")
    watch = KeyWatch(LocalKeys(keyset), look_seconds=0.01)
    (tmp_path / "keyset.json").unlink()
    looking = asyncio.create_task(watch.run())
    try:
        await until(true(lambda: watch._trouble is not None))
        assert "can't be read" in str(await watch.trouble())
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def test_a_key_is_remembered_for_minutes_only_however_often_it_is_used(monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr(remembered_keys.time, "monotonic", lambda: now)
    kept: RememberedKeys[str] = RememberedKeys()
    kept.add("mbx_1", b"key")
    now += 299
    assert kept.get("mbx_1") == b"key"
    now += 2
    assert kept.get("mbx_1") is None
    kept.add("mbx_2", b"other")
    assert len(kept) == 1


def test_no_more_keys_are_remembered_than_there_is_room_for() -> None:
    kept: RememberedKeys[int] = RememberedKeys(most=3)
    for number in range(5):
        kept.add(number, b"key")
    assert [kept.get(number) for number in range(5)] == [None, None, b"key", b"key", b"key"]
    kept.forget(3)
    kept.forget(99)
    assert len(kept) == 2
