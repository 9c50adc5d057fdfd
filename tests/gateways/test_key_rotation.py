"""Key rotation: everything ends up under the new key, nobody is in its way nor it in anybody's, and it can be cut short."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateways.command_line.failures import Failed
from gateways.command_line.rotate_keys import rotate_keys
from gateways.stores import key_rotation, keyset
from gateways.stores.key_rotation import NotAllWrapped, Rotated, RotationUnderWay, forget_unused, is_due, rotate
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import KeysUnreachable, LocalKeys
from gateways.stores.kms_chosen import key_encryption
from gateways.stores.postgres import pooled
from projections.migrate import migrate
from tests.support.key_house import KeyHouse, Unreachable, tokens
from tests.support.kms.aws import CREDENTIALS, AwsKms
from tests.support.kms.key_vault import KeyVault

YEARS = timedelta(days=3650)


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[KeyHouse]:
    await migrate(database)
    async with pooled(database, size=5) as pool:
        house = KeyHouse(pool, tmp_path / "keyset.json")
        await house.keyring.create_all([f"mbx_{number:02}" for number in range(30)])
        for number in range(10):
            await house.put(f"con_{number:02}")
        yield house


class Reports:
    def __init__(self) -> None:
        self.heard: list[Rotated] = []

    async def __call__(self, rotated: Rotated) -> None:
        self.heard.append(rotated)


async def rotated(house: KeyHouse, keys: Any = None, **more: Any) -> Rotated:
    reports = Reports()
    done = await rotate(house.pool, keys or house.keys, report=reports, **{"settle_seconds": 0.01, **more})
    assert reports.heard == [done]
    return done


class Meddling(LocalKeys):
    """The keys of the file, and something that happens between a row's reading and its exchange."""

    def __init__(self, house: KeyHouse, meddle: Callable[[str], Awaitable[None]]) -> None:
        super().__init__(house.keyset)
        self._meddle = meddle

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        await self._meddle(context)
        return await super().unwrap(kid, wrapped, context)


def file_of(house: KeyHouse) -> dict[str, Any]:
    return json.loads(house.path.read_text())


async def test_every_row_is_wrapped_by_the_new_key_and_opens_as_before(house: KeyHouse) -> None:
    before, seen = house.keyset.primary, []
    made = await house.keyring.get(["mbx_00"])
    done = await rotated(house, progress=lambda at, total: seen.append((at, total)), batch=7)
    assert done.key != before
    assert done.rows == 40
    assert await house.kids() == {"keyring": {done.key}, "vault": {done.key}}
    assert seen[-1] == (40, 40)
    assert seen == sorted(seen)
    assert await house.opened() == (30, 10)
    assert await house.another().keyring.get(["mbx_00"]) == made
    held = await house.another().vault.get("con_00")
    assert held is not None
    assert held.secrets == tokens("con_00")


async def test_the_file_has_both_keys_and_only_the_new_one_wraps(house: KeyHouse) -> None:
    before = file_of(house)
    done = await rotated(house)
    after = file_of(house)
    assert (after["primary"], after["installation"]) == (done.key, before["installation"])
    assert [(key["kid"], key["status"]) for key in after["keys"]] == [
        (before["primary"], "disabled"),
        (done.key, "enabled"),
    ]
    assert house.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in house.path.parent.iterdir()] == ["keyset.json"]


async def test_who_held_the_earlier_file_opens_at_once_and_wraps_by_the_new_key_within_a_second(
    house: KeyHouse,
) -> None:
    elsewhere, late = house.another(), house.another()
    done = await rotated(house)
    held = await elsewhere.vault.get("con_00")
    assert held is not None
    late.keyset._looked -= keyset.LOOK_SECONDS
    assert await late.keyring.create("mbx_late")
    assert (await house.kids())["keyring"] == {done.key}


async def test_a_row_that_changes_while_it_is_wrapped_anew_keeps_what_it_was_changed_to(house: KeyHouse) -> None:
    changed: list[str] = []

    async def connect_anew(context: str) -> None:
        if context.startswith("con_") and len(changed) < 5 and context not in changed:
            changed.append(context)
            await house.put(context, tokens("anew"))

    await rotated(house, Meddling(house, connect_anew))
    assert len(changed) == 5
    for connection in changed:
        held = await house.another().vault.get(connection)
        assert held is not None
        assert (held.version, held.secrets) == (2, tokens("anew"))


async def test_a_row_that_goes_while_it_is_wrapped_anew_stays_gone(house: KeyHouse) -> None:
    async def destroy(context: str) -> None:
        if context in ("con_03", "mbx_03"):
            await house.vault.destroy(context)
            await house.keyring.destroy(context)

    done = await rotated(house, Meddling(house, destroy))
    assert done.rows == 38
    assert await house.opened() == (29, 9)


async def test_a_row_in_somebodys_hands_is_left_for_later_and_waited_for_by_nobody(house: KeyHouse) -> None:
    before = house.keyset.primary
    async with house.pool.acquire() as other:
        holding = other.transaction()
        await holding.start()
        await other.execute("select 1 from vault where connection = 'con_03' for update")
        rotating = asyncio.create_task(rotated(house))
        async with asyncio.timeout(10):
            while await house.pool.fetchval("select count(*) from vault where kid = $1", before) > 1:
                await asyncio.sleep(0.02)
        assert not rotating.done()
        await holding.rollback()
    assert (await rotating).rows == 40


async def test_what_is_wrapped_by_the_earlier_key_meanwhile_is_caught(house: KeyHouse) -> None:
    """By a process that has not looked at the file yet."""
    slow = house.another()
    slow.keyset._looked += 3600

    async def report(_: Rotated) -> None:
        assert (await house.kids())["keyring"] == {house.another().keyset.primary}

    rotating = asyncio.create_task(rotate(house.pool, house.keys, report=report, settle_seconds=0.5))
    async with asyncio.timeout(10):
        while slow.keyset.primary in (await house.kids())["keyring"]:
            await asyncio.sleep(0.02)
    await slow.keyring.create("mbx_late")
    assert (await rotating).rows == 41
    assert await house.opened() == (31, 10)


async def test_who_never_hears_of_the_new_key_is_told_of(house: KeyHouse, monkeypatch) -> None:
    """As where each machine has a copy of its own of the file."""
    deaf, number = house.another(), iter(range(1000))
    deaf.keyset._looked += 3600

    async def wrap_one(_: int, __: int) -> None:
        await deaf.keyring.create(f"mbx_deaf_{next(number)}")

    tasks = []
    monkeypatch.setattr(key_rotation, "SETTLED_AT_LAST", 3)
    with pytest.raises(NotAllWrapped, match="same keyset file"):
        await rotated(house, settle_seconds=0.3, progress=lambda *at: tasks.append(asyncio.create_task(wrap_one(*at))))
    assert await is_due(house.pool, house.keys, max_age=YEARS)
    await asyncio.gather(*tasks)
    assert (await rotated(house)).rows > 40
    assert not await is_due(house.pool, house.keys, max_age=YEARS)


async def test_one_that_cannot_be_opened_keeps_the_rotation_from_ending_and_nothing_else(house: KeyHouse) -> None:
    await house.pool.execute("update keyring set wrapped = 'xxxxxxxxxxxxxxxxxxxxxxxx' where subject = 'mbx_03'")
    await house.pool.execute("update vault set kid = 'local-00000000' where connection = 'con_03'")
    before = house.keyset.primary
    with pytest.raises(NotAllWrapped, match=r"2 data keys can't be opened.*mbx_03: it was changed"):
        await rotated(house)
    now = house.another().keyset.primary
    assert await house.kids() == {"keyring": {before, now}, "vault": {"local-00000000", now}}
    assert [key["status"] for key in file_of(house)["keys"]] == ["enabled", "enabled"]
    await house.vault.destroy("con_03")
    await house.keyring.destroy("mbx_03")
    done = await rotated(house)
    assert (done.key, done.rows) == (now, 38), "the same rotation, ended"


async def test_two_do_not_rotate_at_once(house: KeyHouse, database: str) -> None:
    async def again(_: Rotated) -> None:
        async with pooled(database, size=2) as other:
            with pytest.raises(RotationUnderWay):
                await rotate(other, house.another().keys, report=Reports())

    await rotate(house.pool, house.keys, report=again, settle_seconds=0)
    assert (await rotated(house)).rows == 40, "and the next one may"


async def test_a_report_that_fails_is_made_again_for_the_same_rotation(house: KeyHouse) -> None:
    async def unheard(_: Rotated) -> None:
        raise ConnectionError("the log is away")

    with pytest.raises(ConnectionError):
        await rotate(house.pool, house.keys, report=unheard, settle_seconds=0)
    assert await is_due(house.pool, house.keys, max_age=YEARS)
    done = await rotated(house)
    assert (done.rows, len(file_of(house)["keys"])) == (40, 2)
    assert not await is_due(house.pool, house.keys, max_age=YEARS)


async def test_keys_that_cannot_be_reached_are_waited_for(house: KeyHouse) -> None:
    keys = Unreachable(house.keys, KeysUnreachable("down"))
    with pytest.raises(KeysUnreachable):
        await rotated(house, keys)
    keys.down = False
    assert (await rotated(house, keys)).rows == 40


# ── when it is due ────────────────────────────────────────────────────────────────────────────────────────────────────


def made(house: KeyHouse, **changes: str | None) -> None:
    """As if the first key were described so in the file."""
    kept = file_of(house)
    kept["keys"][0] |= changes
    kept["keys"][0] = {name: value for name, value in kept["keys"][0].items() if value is not None}
    house.path.write_text(json.dumps(kept))


async def test_it_is_due_when_the_key_is_old(house: KeyHouse) -> None:
    assert not await is_due(house.pool, house.keys, max_age=timedelta(days=90))
    made(house, made_at="2020-01-01T00:00:00+00:00")
    assert await is_due(house.pool, house.keys, max_age=timedelta(days=90))
    assert (await rotated(house, older_than=timedelta(days=90))).rows == 40
    assert not await is_due(house.pool, house.keys, max_age=timedelta(days=90))
    assert (await rotated(house, older_than=timedelta(days=90))).rows == 0, "the present key is young enough"


async def test_a_key_of_a_file_that_does_not_say_is_as_old_as_the_file(house: KeyHouse) -> None:
    made(house, made_at=None)
    assert open_keyset(house.path).made_at.timestamp() == pytest.approx(house.path.stat().st_mtime, abs=1)
    age = open_keyset(house.path).made_at.isoformat()
    await rotated(house)
    assert file_of(house)["keys"][0]["made_at"] == age, "what the file is written at later says nothing of it"


async def test_it_is_due_where_a_row_is_wrapped_by_another_key(house: KeyHouse) -> None:
    late = house.another()
    late.keyset._looked += 3600
    await rotated(house)
    await late.keyring.create("mbx_late")
    assert await is_due(house.pool, house.keys, max_age=YEARS)
    assert (await rotated(house, older_than=YEARS)).rows == 1
    assert not await is_due(house.pool, house.keys, max_age=YEARS)
    assert len(file_of(house)["keys"]) == 2


# ── earlier keys ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_disabled_key_is_destroyed_only_when_told_and_not_while_a_row_needs_it(house: KeyHouse) -> None:
    before = house.keyset.primary
    late = house.another()
    late.keyset._looked += 3600
    assert await forget_unused(house.pool, house.keyset, disabled_for=timedelta(0)) == []
    await rotated(house)
    assert await forget_unused(house.pool, house.keyset) == [], "somebody may still be wrapping by it"
    await late.keyring.create("mbx_late")
    assert await forget_unused(house.pool, house.keyset, disabled_for=timedelta(0)) == []
    await rotated(house, older_than=YEARS)
    assert await forget_unused(house.pool, house.keyset, disabled_for=timedelta(0)) == [before]
    assert before not in house.path.read_text()
    assert await house.opened() == (31, 10)


async def test_another_keyset_in_its_place_is_not_taken(house: KeyHouse, tmp_path: Path) -> None:
    open_keyset(tmp_path / "other.json")
    (tmp_path / "other.json").replace(house.path)
    with pytest.raises(keyset.KeysetError, match="replaced by another"):
        house.keyset.look()


async def test_a_file_that_cannot_be_replaced_is_left_as_it_is(house: KeyHouse, monkeypatch) -> None:
    before = house.path.read_text()

    def refuse(*_: Any) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(keyset.KeysetError, match="must be able to replace the file"):
        await rotated(house)
    assert house.path.read_text() == before
    assert [path.name for path in house.path.parent.iterdir()] == ["keyset.json"]


# ── other keepers ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_is_brought_from_one_keeper_to_the_next_and_back(house: KeyHouse) -> None:
    async with AwsKms() as aws, KeyVault() as azure:
        options = {
            "aws": {"endpoint_url": aws.endpoint, **CREDENTIALS},
            "azure": {
                "credential": azure.credential,
                "connection_verify": str(azure.authority),
                "verify_challenge_resource": False,
                "retry_total": 0,
            },
        }
        settings = [f"aws:{aws.key_id}", f"azure:{azure.url}/keys/kek", "local"]
        for setting in settings:
            keys = key_encryption(setting, house.keyset, **options)
            assert await is_due(house.pool, keys, max_age=YEARS)
            done = await rotated(house, keys)
            assert done.rows == 40
            assert done.key.startswith(setting.partition(":")[0])
            assert not await is_due(house.pool, keys, max_age=YEARS)
            assert len(await house.another(keys).keyring.get([f"mbx_{number:02}" for number in range(30)])) == 30
            await keys.close()


async def test_a_new_version_at_the_key_vault_is_gone_over_to_even_in_the_middle(house: KeyHouse) -> None:
    async with KeyVault() as azure:
        words = {
            "credential": azure.credential,
            "connection_verify": str(azure.authority),
            "verify_challenge_resource": False,
        }
        keys = key_encryption(f"azure:{azure.url}/keys/kek", house.keyset, azure=words)
        moved = False

        def progress(_: int, __: int) -> None:
            nonlocal moved
            if not moved:
                moved = True
                azure.rotate()
                keys._wrapping._newest_until = 0.0  # type: ignore[union-attr]  # Azure's, as set

        done = await rotated(house, keys, progress=progress, batch=10)
        assert done.key.endswith(f"{2:032x}")
        assert await house.kids() == {"keyring": {done.key}, "vault": {done.key}}
        azure.forget(f"{1:032x}")
        assert len(await house.another(keys).keyring.get([f"mbx_{number:02}" for number in range(30)])) == 30
        await keys.close()


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_command_says_what_it_did(house: KeyHouse, capsys, monkeypatch) -> None:
    monkeypatch.setitem(rotate.__kwdefaults__, "settle_seconds", 0.0)
    await rotate_keys(house.pool, house.keys, house.keyset, report=Reports(), forget=True)
    said = capsys.readouterr()
    row = json.loads(said.out)
    assert (row["key"], row["rows"], row["forgotten"]) == (house.keyset.primary, 40, [])
    assert "Back up the keyset file now" in said.err
    await rotate_keys(house.pool, house.keys, house.keyset, report=Reports(), output="table")
    assert "40 data keys wrapped anew by local-" in capsys.readouterr().out


async def test_the_command_fails_in_a_sentence(house: KeyHouse, database: str) -> None:
    async def again(_: Rotated) -> None:
        async with pooled(database, size=2) as other:
            with pytest.raises(Failed, match="by another process"):
                await rotate_keys(other, house.keys, house.keyset, report=Reports())

    await rotate(house.pool, house.keys, report=again, settle_seconds=0)
    down = Unreachable(house.keys, KeysUnreachable("AWS KMS does not answer"))
    with pytest.raises(Failed, match=r"does not answer\. Run it again"):
        await rotate_keys(house.pool, down, house.keyset, report=Reports())
