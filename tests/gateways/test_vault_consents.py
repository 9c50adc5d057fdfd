"""What connecting remembers on its way: used once, in time, by the right browser; kept as hashes and sealed; and swept."""

import asyncio
import secrets as random_bits
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateways.stores.consents import REMOVED, ConnectCleanup, Consents, Sessions, Tickets
from gateways.stores.postgres import pooled
from gateways.stores.sealing import Unsealable
from projections.migrate import migrate
from tests.support.key_house import KeyHouse, everything_kept, has_any

SAID = {"return_url": "https://app.example/back", "client_secret": "s"}


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[KeyHouse]:
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield KeyHouse(pool, tmp_path / "keyset.json")


async def test_a_ticket_and_a_consent_are_used_once_however_many_try(house: KeyHouse) -> None:
    tickets, consents = Tickets(house.pool, house.keyset), Consents(house.pool, house.keyset)
    raw = await tickets.issue(account="acc_1", user="usr_1", provider=None, said=SAID)
    used = [ticket for ticket in await asyncio.gather(*[tickets.use(raw) for _ in range(20)]) if ticket]
    assert [(ticket.account, ticket.user, ticket.provider, ticket.said) for ticket in used] == [
        ("acc_1", "usr_1", None, SAID)
    ]
    browser = await consents.begin("state", provider="gmail", said=SAID)
    taken = [consents.take("state", browser=browser, provider="gmail") for _ in range(20)]
    assert [said for said in await asyncio.gather(*taken) if said] == [SAID]


async def test_a_foreign_browser_or_provider_uses_nothing_up(house: KeyHouse) -> None:
    consents = Consents(house.pool, house.keyset)
    browser = await consents.begin("state", provider="gmail", said=SAID)
    for foreign in ({"browser": "x"}, {"browser": ""}, {"browser": browser.swapcase()}, {"provider": "outlook"}):
        assert await consents.take("state", **{"browser": browser, "provider": "gmail"} | foreign) is None
    assert await consents.take("other", browser=browser, provider="gmail") is None
    assert await consents.take("state", browser=browser, provider="gmail") == SAID


async def test_what_lapsed_is_no_good_and_is_swept_a_few_at_a_time(house: KeyHouse) -> None:
    lapsed = Tickets(house.pool, house.keyset, life_seconds=-1)
    gone = [
        await lapsed.issue(account="acc_1", user="usr_1", provider="gmail", said={}) for _ in range(3)
    ]  # each sweeps what is there, so that one is left
    assert await lapsed.use(gone[-1]) is None
    await house.pool.execute(
        "insert into connect_tickets select 'old' || n, account, user_id, provider, sealed, expires_at, used_at "
        "from connect_tickets, generate_series(1, 50) n limit 50"
    )
    before = await house.pool.fetchval("select count(*) from connect_tickets")
    raw = await Tickets(house.pool, house.keyset).issue(account="acc_1", user="usr_1", provider="gmail", said={})
    assert await house.pool.fetchval("select count(*) from connect_tickets") == before + 1 - REMOVED
    assert await Tickets(house.pool, house.keyset).use(raw)
    over = Sessions(house.pool, life_seconds=-1)
    assert await over.get(await over.open(account="acc_1", user="usr_1", return_url=None)) is None
    late = Consents(house.pool, house.keyset, life_seconds=-1)
    browser = await late.begin("state", provider="gmail", said={})
    assert await late.take("state", browser=browser, provider="gmail") is None


async def test_a_cleanup_deletes_all_that_lapsed_and_a_users_own(
    house: KeyHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.stores.consents.CLEANED", 20)
    tickets, sessions, cleanup = Tickets(house.pool, house.keyset), Sessions(house.pool), ConnectCleanup(house.pool)
    lapsed = {"account": "acc_1", "user": "usr_1", "provider": "gmail", "said": SAID}
    await Tickets(house.pool, house.keyset, life_seconds=-1).issue(**lapsed)
    await house.pool.execute(
        "insert into connect_tickets select 'old' || n, account, user_id, provider, sealed, expires_at, used_at "
        "from connect_tickets, generate_series(1, 50) n"
    )
    await Sessions(house.pool, life_seconds=-1).open(account="acc_1", user="usr_1", return_url=None)
    await Consents(house.pool, house.keyset, life_seconds=-1).begin("state", provider="gmail", said=SAID)
    await cleanup.delete_lapsed()
    for table in ("connect_tickets", "connect_sessions", "consents"):
        assert await house.pool.fetchval(f"select count(*) from {table}") == 0
    live = {user: await tickets.issue(**lapsed | {"user": user}) for user in ("usr_1", "usr_2")}
    open_ = {user: await sessions.open(account="acc_1", user=user, return_url="https://app.example/") for user in live}
    await cleanup.delete_lapsed()
    await cleanup.delete_user("usr_1")
    assert (await tickets.use(live["usr_1"]), await sessions.get(open_["usr_1"])) == (None, None)
    assert await tickets.use(live["usr_2"])
    assert await sessions.get(open_["usr_2"])


async def test_a_session_is_found_by_what_its_browser_holds(house: KeyHouse) -> None:
    sessions = Sessions(house.pool)
    raw = await sessions.open(account="acc_1", user="usr_1", return_url="https://app.example/")
    found = await sessions.get(raw)
    assert found is not None
    assert (found.account, found.user, found.return_url) == ("acc_1", "usr_1", "https://app.example/")
    assert await sessions.get(raw + "x") is None


async def test_the_tables_hold_nothing_that_a_thief_could_use(house: KeyHouse) -> None:
    canary = f"canary{random_bits.token_hex(16)}"
    tickets, consents, sessions = (
        Tickets(house.pool, house.keyset),
        Consents(house.pool, house.keyset),
        Sessions(house.pool),
    )
    carried = [
        await tickets.issue(account="acc_1", user="usr_1", provider="smtp", said={"client_secret": canary}),
        await consents.begin(f"state-{canary}", provider="gmail", said={"verifier": canary}),
        await sessions.open(account="acc_1", user="usr_1", return_url=None),
    ]
    assert all(len(raw) >= 43 for raw in carried), "256 bits"
    texts = await everything_kept(house.pool)
    for secret in (canary, *carried):
        assert not has_any(texts, secret)


async def test_what_is_sealed_for_one_ticket_opens_for_no_other(house: KeyHouse) -> None:
    tickets = Tickets(house.pool, house.keyset)
    raw = await tickets.issue(account="acc_1", user="usr_1", provider="smtp", said={"n": 1})
    await tickets.issue(account="acc_2", user="usr_2", provider="smtp", said={"n": 2})
    await house.pool.execute(
        "update connect_tickets t set sealed = o.sealed from connect_tickets o where o.ticket_hash <> t.ticket_hash"
    )
    with pytest.raises(Unsealable):
        await tickets.use(raw)
