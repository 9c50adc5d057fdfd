"""The vault: what is kept is got, sealed for its place; and nobody is in anybody's way."""

import logging
import secrets as random_bits
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.tokens import Secrets
from gateways.stores.kms import KeysUnreachable
from gateways.stores.postgres import UNREACHABLE, pooled
from gateways.stores.sealing import Unsealable
from projections.migrate import migrate
from tests.support.key_house import KeyHouse, Unreachable, everything_kept, has_any, own_servers, tokens

SEALED = ("access", "refresh", "previous", "servers")


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[KeyHouse]:
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield KeyHouse(pool, tmp_path / "keyset.json")


async def rotated(house: KeyHouse, connection: str, secrets: Secrets) -> None:
    """A row with every field in it: its refresh token was replaced once."""
    await house.put(connection, secrets)
    (held,) = await house.vault.lease([connection], seconds=30, holder="a")
    new = Secrets(f"{secrets.access_token}+", f"{secrets.refresh_token}+", secrets.expires_at, secrets.servers)
    assert await house.vault.switch(held, holder="a", secrets=new, fingerprint="f") == held.version + 1


async def test_what_is_kept_is_got_by_everybody(house: KeyHouse) -> None:
    kept = Secrets("access", "refresh", tokens("x").expires_at, own_servers("s"))
    assert await house.put("con_1", kept) == 1
    for vault in (house.vault, house.another().vault):
        held = await vault.get("con_1")
        assert held is not None
        assert (held.user, held.provider, held.version) == ("usr_1", "gmail", 1)
        assert (held.secrets, held.previous) == (kept, None)
        assert held.fingerprint == house.vault.fingerprint_of(kept)


async def test_what_was_never_kept_or_is_destroyed_is_nothing(house: KeyHouse) -> None:
    await house.put("con_1")
    assert await house.vault.get("con_2") is None
    assert await house.vault.destroy("con_1") is True
    assert await house.vault.destroy("con_1") is False
    assert await house.vault.get("con_1") is None
    assert await house.vault.lease(["con_1"], seconds=30, holder="a") == []


async def test_connecting_anew_replaces_everything_and_ends_the_lease(house: KeyHouse) -> None:
    await rotated(house, "con_1", tokens("con_1"))
    (leased,) = await house.vault.lease(["con_1"], seconds=30, holder="a")
    assert await house.put("con_1", tokens("anew")) == 3
    held = await house.another().vault.get("con_1")
    assert held is not None
    assert (held.version, held.secrets, held.previous) == (3, tokens("anew"), None)
    lost = await house.vault.switch(leased, holder="a", secrets=tokens("late"), fingerprint="f")
    assert lost is None, "an answer that comes late must not replace a new consent"
    assert await house.vault.lease(["con_1"], seconds=30, holder="b")


async def test_a_refresh_token_that_was_replaced_is_kept_until_the_next_one_is_proved(house: KeyHouse) -> None:
    await rotated(house, "con_1", tokens("con_1"))
    (held,) = await house.another().vault.lease(["con_1"], seconds=30, holder="b")
    assert (held.previous, held.secrets.refresh_token) == ("refresh-con_1-1", "refresh-con_1-1+")
    same = Secrets("access-3", held.secrets.refresh_token, None)
    assert await house.vault.switch(held, holder="b", secrets=same, fingerprint="g") == 3
    proved = await house.vault.get("con_1")
    assert proved is not None
    assert (proved.previous, proved.fingerprint, proved.secrets.expires_at) == (None, "g", None)


async def test_what_is_sealed_for_one_place_opens_in_no_other(house: KeyHouse) -> None:
    for connection in ("con_1", "con_2"):
        await rotated(house, connection, Secrets("access", "refresh", None, own_servers("s")))
    original = await house.pool.fetchrow("select * from vault where connection = 'con_1'")
    other = await house.pool.fetchrow("select * from vault where connection = 'con_2'")
    swaps = [(here, original[there]) for here in SEALED for there in SEALED if here != there]
    swaps += [(here, other[here]) for here in (*SEALED, "wrapped")]
    swaps += [(here, original[here][:-1] + bytes([original[here][-1] ^ 1])) for here in (*SEALED, "wrapped")]
    swaps += [(here, b"") for here in (*SEALED, "wrapped")]
    for column, value in swaps:
        await house.pool.execute(f"update vault set {column} = $1 where connection = 'con_1'", value)
        with pytest.raises(Unsealable):
            await house.another().vault.get("con_1")
        await house.pool.execute(f"update vault set {column} = $1 where connection = 'con_1'", original[column])
    assert await house.another().vault.get("con_1"), "as it was, it opens"
    whole = [other[column] for column in ("kid", "wrapped", *SEALED)]
    await house.pool.execute(
        "update vault set kid = $1, wrapped = $2, access = $3, refresh = $4, previous = $5, servers = $6 "
        "where connection = 'con_1'",
        *whole,
    )
    with pytest.raises(Unsealable):
        await house.another().vault.get("con_1")


async def test_one_that_cannot_be_opened_is_in_nobodys_way_and_is_told(house: KeyHouse, caplog, monkeypatch) -> None:
    monkeypatch.setattr(
        logging.getLogger("gateways.stores.vault"), "disabled", False
    )  # import-linter's set-up does that
    for connection in ("con_1", "con_2", "con_3"):
        await house.put(connection)
    await house.pool.execute("update vault set refresh = access where connection = 'con_2'")
    with caplog.at_level(logging.ERROR):
        held = await house.another().vault.lease(["con_1", "con_2", "con_3"], seconds=30, holder="a")
        orphans = await house.another().vault.orphans(older_than=0)
    assert sorted(one.connection for one in held) == sorted(one.connection for one in orphans) == ["con_1", "con_3"]
    assert [record.__dict__["connection"] for record in caplog.records] == ["con_2", "con_2"]


async def test_keys_that_cannot_be_reached_are_waited_for_and_nothing_stays_leased(house: KeyHouse) -> None:
    keys = Unreachable(house.keys, KeysUnreachable("down"))
    cold = house.another(keys)
    await house.put("con_1")
    for attempt in (cold.vault.get("con_1"), cold.put("con_2"), cold.vault.lease(["con_1"], seconds=30, holder="a")):
        with pytest.raises(UNREACHABLE):
            await attempt
    assert await house.vault.get("con_2") is None
    keys.down = False
    assert [one.connection for one in await cold.vault.lease(["con_1"], seconds=30, holder="b")] == ["con_1"]


async def test_those_whose_keys_can_be_reached_do_not_wait_for_the_others(house: KeyHouse) -> None:
    keys = Unreachable(house.keys, KeysUnreachable("down"))
    halfway = house.another(keys)
    for connection in ("con_1", "con_2"):
        await house.put(connection)
    keys.down = False
    await halfway.vault.get("con_1")  # its data key is remembered
    keys.down = True
    assert [one.connection for one in await halfway.vault.lease(["con_1", "con_2"], seconds=30, holder="a")] == [
        "con_1"
    ]
    assert [one.connection for one in await house.vault.lease(["con_1", "con_2"], seconds=30, holder="b")] == ["con_2"]


async def test_no_secret_is_found_in_any_table(house: KeyHouse) -> None:
    canary = f"canary{random_bits.token_hex(16)}"
    kept = Secrets(f"{canary}-access", f"{canary}-refresh", None, own_servers(canary))
    await rotated(house, "con_1", kept)
    data_key = (await house.keyring.create_all(["usr_1"]))["usr_1"]
    texts = await everything_kept(house.pool)
    assert len([text for text in texts if "con_1" in text]) == 1
    assert not has_any(texts, canary)
    assert not any(data_key.hex() in text for text in texts)
    await house.pool.execute(
        "update vault set access = convert_to($1, 'UTF8') where connection = 'con_1'", f"a{canary}"
    )
    assert has_any(await everything_kept(house.pool), canary), "the search must find what is there"


async def test_what_objects_and_errors_say_of_themselves_holds_no_secret(house: KeyHouse) -> None:
    canary = f"canary{random_bits.token_hex(16)}"
    await rotated(house, "con_1", Secrets(f"{canary}-access", f"{canary}-refresh", None, own_servers(canary)))
    held = await house.vault.get("con_1")
    assert held is not None
    said = [repr(held), repr(vars(house.vault)["_keys"])]
    assert held.data_key.hex() not in said[0]
    await house.pool.execute("update vault set refresh = access where connection = 'con_1'")
    with pytest.raises(Unsealable) as failed:
        await house.another().vault.get("con_1")
    said += [str(failed.value), repr(failed.value), repr(failed.getrepr(showlocals=False))]
    assert not has_any(said, canary)


def row_of(connection: str, state: str) -> str:
    return (
        "insert into connections (connection, user_id, owner, provider, auth, account, account_digest, scopes, "
        "missing_scopes, state, token_version, token_fingerprint, connected_at, partition, position) values "
        f"('{connection}', 'usr_1', 'acc_1', 'gmail', 'oauth', '', '', '{{}}', '{{}}', '{state}', 1, '', now(), 0, 1)"
    )


async def test_orphans_are_those_of_no_connection_or_a_revoked_one_and_old_enough(house: KeyHouse) -> None:
    for connection, state in (("con_a", "active"), ("con_b", "reauth_required"), ("con_c", "revoked"), ("con_d", None)):
        await house.put(connection)
        if state:
            await house.pool.execute(row_of(connection, state))
    assert await house.vault.orphans(older_than=60) == []
    found = await house.vault.orphans(older_than=0)
    assert sorted((one.connection, one.secrets) for one in found) == [
        (name, tokens(name)) for name in ("con_c", "con_d")
    ]


def test_a_token_is_told_by_its_fingerprint_and_a_password_by_nothing(tmp_path: Path) -> None:
    vault = KeyHouse(None, tmp_path / "keyset.json").vault  # type: ignore[arg-type]  # no table is read
    assert vault.fingerprint_of(tokens("a")) == vault.fingerprint_of(tokens("a")) != vault.fingerprint_of(tokens("b"))
    password = Secrets(servers=own_servers("s"))
    assert vault.fingerprint_of(password) != vault.fingerprint_of(password)
