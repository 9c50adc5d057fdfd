"""A keyset of another installation stops every role before anything happens under it."""

import asyncio
import os
import shutil
from pathlib import Path

import asyncpg
import pytest

from gateways.local_servers import Servers
from gateways.stores.key_rotation import rotate
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset, KeysetError, open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.one_keyset import check_keyset
from gateways.stores.postgres import Pool, pooled
from projections.migrate import migrate
from tests.support.main_words import Installed


@pytest.fixture
async def pool(database: str):
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield pool


@pytest.fixture
def two(tmp_path: Path) -> tuple[Keyset, Keyset]:
    return open_keyset(tmp_path / "one.json"), open_keyset(tmp_path / "another.json")


async def holds(pool: Pool, keyset: Keyset) -> bool:
    try:
        await check_keyset(pool, keyset, Path("keyset.json"))
    except KeysetError:
        return False
    return True


async def test_the_first_keyset_is_the_only_one(pool: Pool, two: tuple[Keyset, Keyset]) -> None:
    assert [await holds(pool, keyset) for keyset in (two[0], two[1], two[0])] == [True, False, True]


async def test_of_two_that_come_at_once_one_is_the_first(pool: Pool, two: tuple[Keyset, Keyset]) -> None:
    held = await asyncio.gather(*[holds(pool, keyset) for keyset in two * 4])
    assert {tuple(held[number::2]) for number in (0, 1)} == {(True,) * 4, (False,) * 4}


async def test_a_database_that_remembers_none_takes_the_one_that_opens_its_keys(
    pool: Pool, two: tuple[Keyset, Keyset]
) -> None:
    await Keyring(pool, LocalKeys(two[1])).create("mbx_1")
    assert [await holds(pool, keyset) for keyset in (two[0], two[1], two[0])] == [False, True, False]


async def never(_: object) -> None:
    raise AssertionError("nothing was rotated")


async def told(_: object) -> None:
    """Whom it may concern has heard of a rotation."""


async def test_a_copy_from_before_keys_were_rotated_is_refused(pool: Pool, tmp_path: Path) -> None:
    path, copy = tmp_path / "keyset.json", tmp_path / "copy.json"
    keyset = open_keyset(path)
    assert await holds(pool, keyset)
    await Keyring(pool, LocalKeys(keyset)).create("mbx_1")
    shutil.copy(path, copy)
    before = open_keyset(copy)
    await rotate(pool, LocalKeys(keyset), report=told, settle_seconds=0)
    assert await holds(pool, keyset)
    with pytest.raises(KeysetError, match=r"no key local-\w+, by which .* a copy from before keys were rotated"):
        await check_keyset(pool, before, copy)


async def test_whoever_has_such_a_copy_makes_no_second_newest_key(pool: Pool, tmp_path: Path) -> None:
    """As when machines have a file each, and each finds that its key is old."""
    path, copy = tmp_path / "keyset.json", tmp_path / "copy.json"
    keyset = open_keyset(path)
    await Keyring(pool, LocalKeys(keyset)).create("mbx_1")
    shutil.copy(path, copy)
    other = LocalKeys(open_keyset(copy))
    await rotate(pool, LocalKeys(keyset), report=told, settle_seconds=0)
    kept = copy.read_bytes()
    with pytest.raises(KeysetError, match="a copy from before keys were rotated"):
        await rotate(pool, other, report=never, settle_seconds=0)
    assert copy.read_bytes() == kept
    shutil.copy(path, copy)
    await rotate(pool, other, report=told, settle_seconds=0)


async def test_the_fingerprint_says_nothing_of_the_secrets(two: tuple[Keyset, Keyset], tmp_path: Path) -> None:
    assert two[0].fingerprint != two[1].fingerprint
    assert two[0].fingerprint == open_keyset(tmp_path / "one.json").fingerprint
    assert two[0].fingerprint not in (tmp_path / "one.json").read_text()


async def test_a_database_of_the_first_version_is_brought_up_to_date(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    await connection.execute(
        "drop table kept.installation, kept.vault, kept.key_rotations, kept.connect_tickets, kept.consents, "
        "kept.connect_sessions, kept.mailbox_slots, kept.send_keys, read.users, read.connections, read.attachments, "
        "read.webhooks, read.webhook_secrets, "
        "read.deliveries, read.sends, read.send_attempts, read.account_decisions, read.connection_decisions, "
        "read.send_decisions, read.webhook_decisions, read.send_feed, read.connection_feed, "
        "read.connection_feed_states; drop index kept.keyring_kid; "
        "alter table read.feed drop column reason; "
        "update public.alembic_version set version_num = '0001'"
    )
    await migrate(database)
    assert await connection.fetch("select * from kept.installation") == []
    await connection.close()


def test_every_role_says_so_and_ends(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> None:
    """As when the file was deleted, and made anew by the next start."""
    ours = Installed.at(tmp_path, kafka=servers.kafka, database_url=database, topic_prefix=topic_prefix)
    assert ours.says("provision").code == 0
    with ours.running("work", name="first"):
        pass
    (tmp_path / "keyset.json").unlink()
    for role in ("http", "smtp", "work", "project"):
        said = ours.says(role)
        assert said.code == 1, role
        assert said.err.startswith(f"{tmp_path}/keyset.json is not the keyset that this database was made with"), role
        assert len(said.err.splitlines()) == 1, role


def test_what_a_killed_process_of_the_same_number_left_half_made_is_in_nobodys_way(tmp_path: Path) -> None:
    """In a container every process is number 1."""
    (tmp_path / f"keyset.json.{os.getpid()}").write_text("half")
    assert open_keyset(tmp_path / "keyset.json")
