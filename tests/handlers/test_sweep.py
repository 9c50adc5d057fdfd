"""Tokens of no connection are destroyed, and only where it is sure that there is none."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.connection_events import Provider, Token
from domain.tokens import Revoked, Secrets
from gateways.caught_up import CaughtUp
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog, LogUnavailable
from gateways.stores.consents import ConnectCleanup, Consents, Sessions, Tickets
from gateways.stores.shared_grants import SharedGrants
from handlers.sweep import Sweeping
from main import assembled
from projections.connections import PROJECTION
from schemas import events
from tests.support.known_users import created, deleted
from tests.support.refresh_house import Account, RefreshHouse, refresh_house
from tests.support.waiting import until


async def grow_old(tokens: RefreshHouse, account: Account) -> None:
    await tokens.house.pool.execute(
        "update vault set switched_at = now() - interval '2 hours' where connection = $1", account.connection
    )


def tables_of(tokens: RefreshHouse) -> CaughtUp:
    return CaughtUp(tokens.log, tokens.house.pool, projection=PROJECTION.name, topic=PROJECTION.topic)


async def caught_up(tokens: RefreshHouse) -> CaughtUp:
    tables = tables_of(tokens)
    assert await tables.catches_up(seconds=20)
    return tables


def sweeping(tokens: RefreshHouse, tables: Any, connectors: Any = None) -> Sweeping:
    house = tokens.house
    providers, grants = connectors or house.connectors.by_provider, SharedGrants(house.pool)
    return Sweeping(house.vault, providers, tables, grants, ConnectCleanup(house.pool))


async def is_there(tokens: RefreshHouse, account: Account) -> bool:
    return await tokens.house.vault.get(account.connection) is not None


async def test_what_a_cut_connecting_left_is_revoked_and_destroyed_once_it_is_old(tokens: RefreshHouse):
    orphan, connected = await tokens.connect(tell=False), await tokens.connect()
    await grow_old(tokens, connected)
    sweeps = sweeping(tokens, await caught_up(tokens))
    assert await sweeps.sweep() == 0
    assert await is_there(tokens, orphan)
    await grow_old(tokens, orphan)
    assert await sweeps.sweep() == 1
    assert not await is_there(tokens, orphan)
    assert (await tokens.counts(orphan))["revocations"] == 1
    assert not (await tokens.server.token(orphan.secrets.refresh_token))["alive"]
    assert await is_there(tokens, connected)
    assert (await tokens.server.token(connected.secrets.refresh_token))["alive"]


async def test_nothing_is_swept_while_the_tables_are_behind(tokens: RefreshHouse):
    """The connection's event is in the log, and not in the tables: by them alone it would be an orphan."""
    account = await tokens.connect()
    await grow_old(tokens, account)
    tables = await caught_up(tokens)
    pool = tokens.house.pool
    row = await pool.fetchrow("delete from connections where connection = $1 returning *", account.connection)
    where = "where name = 'connections' and topic = $1"
    position = await pool.fetchval(f"select position from checkpoints {where}", PROJECTION.topic)
    await pool.execute(f"update checkpoints set position = position - 1 {where}", PROJECTION.topic)
    try:
        assert await sweeping(tokens, tables).sweep() == 0
        await pool.execute(f"delete from checkpoints {where}", PROJECTION.topic)
        assert await sweeping(tokens, tables).sweep() == 0, "tables of which nobody knows how far they are"
    finally:
        await pool.execute(
            "insert into checkpoints (name, topic, partition, position) values ('connections', $1, 0, $2) "
            "on conflict (name, topic, partition) do update set position = excluded.position",
            PROJECTION.topic,
            position,
        )
        values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await pool.execute(f"insert into connections values ({values})", *row.values())
    assert await is_there(tokens, account)
    assert await sweeping(tokens, await caught_up(tokens)).sweep() == 0


async def test_nothing_is_swept_that_a_command_names_which_waits_to_be_decided(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
):
    """Consent was acknowledged while nobody worked, and the tables hold every event there is."""
    async with refresh_house(servers, database, topic_prefix, tmp_path, roles=("project",)) as tokens:
        account = await tokens.connect(tell=False)
        held = await tokens.house.vault.get(account.connection)
        assert held is not None
        token = Token(held.fingerprint, held.version, datetime.now(UTC) + timedelta(hours=1))
        await tokens.ask(await tokens.authorise(account, "gmail", token))
        await grow_old(tokens, account)
        await until(lambda: _every_event_is_folded(tokens))
        sweeps = sweeping(tokens, tables_of(tokens))
        assert await sweeps.sweep() == 0
        async with assembled(tokens.house.settings, ["work"]):
            assert (await tokens.row(account))["state"] == "active"
        assert await is_there(tokens, account)
        assert (await tokens.server.token(account.secrets.refresh_token))["alive"]

        orphan = await tokens.connect(tell=False)
        await grow_old(tokens, orphan)
        assert await sweeping(tokens, await caught_up(tokens)).sweep() == 1
        assert await is_there(tokens, account)
        assert not await is_there(tokens, orphan)


async def _every_event_is_folded(tokens: RefreshHouse) -> bool:
    query = "select position from checkpoints where name = $1 and topic = $2 and partition = 0"
    position = await tokens.house.pool.fetchval(query, PROJECTION.name, PROJECTION.topic)
    return bool(position == (await tokens.log.bounds(PROJECTION.topic, 0))[1])


async def test_nothing_is_swept_while_the_tables_are_being_rebuilt(tokens: RefreshHouse):
    """A rebuild is switched at equal positions: at no moment do the tables know less than they say."""
    from projections.replay import Rebuild

    account = await tokens.connect()
    await grow_old(tokens, account)
    tables, log = await caught_up(tokens), EventLog(tokens.house.kafka, prefix=tokens.house.prefix)
    sweeps, done = sweeping(tokens, tables), asyncio.Event()

    async def again_and_again() -> int:
        swept = 0
        while not done.is_set():
            swept += await sweeps.sweep()
        return swept

    sweeper = asyncio.create_task(again_and_again())
    try:
        for _ in range(3):
            url = tokens.house.database_url
            assert (await Rebuild(PROJECTION, events.CONNECTION, log, url).run()).count == 0
    finally:
        done.set()
        swept = await sweeper
        await log.close()
    assert swept == 0
    assert await is_there(tokens, account)


async def test_nothing_is_swept_while_the_log_can_not_be_asked(tokens: RefreshHouse):
    orphan = await tokens.connect(tell=False)
    await grow_old(tokens, orphan)
    log = EventLog("127.0.0.1:9", prefix=tokens.house.prefix)
    tables = CaughtUp(log, tokens.house.pool, projection=PROJECTION.name, topic=PROJECTION.topic)
    try:
        with pytest.raises((LogUnavailable, OSError)):
            await sweeping(tokens, tables).sweep()
    finally:
        await log.close()
    assert await is_there(tokens, orphan)
    assert await sweeping(tokens, await caught_up(tokens)).sweep() == 1


async def test_what_a_restored_backup_brings_back_of_a_revoked_connection_is_destroyed_again(tokens: RefreshHouse):
    account, pool = await tokens.connect(), tokens.house.pool
    backup = await pool.fetchrow("select * from vault where connection = $1", account.connection)
    await tokens.revoke(account)
    await tokens.row(account, lambda row: row["at_provider"] == "done")
    values = ", ".join(f"${number}" for number in range(1, len(backup) + 1))
    await pool.execute(f"insert into vault values ({values})", *backup.values())
    await grow_old(tokens, account)
    assert await sweeping(tokens, await caught_up(tokens)).sweep() == 1
    assert not await is_there(tokens, account)


async def test_one_that_can_not_be_destroyed_now_keeps_nobody_from_the_others(tokens: RefreshHouse):
    orphans = [await tokens.connect(tell=False) for _ in range(20)]
    for orphan in orphans:
        await grow_old(tokens, orphan)

    class Fails:
        times = 0

        async def revoke(self, secrets: Secrets) -> Revoked:
            self.times += 1
            if self.times == 1:
                raise RuntimeError("a mistake of ours")
            return Revoked("done")

    tables = await caught_up(tokens)
    await sweeping(tokens, tables, {"gmail": Fails()}).sweep()
    left = [orphan for orphan in orphans if await is_there(tokens, orphan)]
    assert len(left) == 1
    assert await sweeping(tokens, tables).sweep() == 1


async def test_what_an_earlier_try_of_the_same_user_left_is_not_revoked_under_their_connection(tokens: RefreshHouse):
    """It may be of the same mailbox, and Google would end both."""
    orphan = await tokens.connect(tell=False)
    await grow_old(tokens, orphan)
    connected = await tokens.connect(user=orphan.user, login=orphan.login)
    assert await sweeping(tokens, await caught_up(tokens)).sweep() == 1
    assert not await is_there(tokens, orphan)
    assert (await tokens.counts(connected))["revocations"] == 0
    assert await is_there(tokens, connected)


class Unknowable:
    """Tables of which nobody can tell how far they are."""

    async def staleness(self) -> float | None:
        raise LogUnavailable("the log can't be asked")


async def test_what_connecting_remembers_is_gone_once_it_has_lapsed_and_nothing_is_left_of_a_deleted_user(
    tokens: RefreshHouse,
):
    """Though nobody connects a mailbox afterwards, whose new rows would take old ones along, and the log can't be asked."""
    house, deletion = tokens.house, await created(tokens.house)
    pool, said = house.pool, {"login_hint": "ada@example.org"}
    tickets, consents, sessions = Tickets(pool, house.keyset), Consents(pool, house.keyset), Sessions(pool)

    async def connecting(user: str, provider: Provider) -> None:
        await tickets.issue(account=deletion.account, user=user, provider=provider, said=said)
        await consents.begin(f"state of {user}", provider=provider, said=said)
        await sessions.open(account=deletion.account, user=user, return_url="https://app.example/back")

    await connecting("usr_other", "gmail")
    await connecting(deletion.user, "outlook")
    await deleted(house, deletion)
    await tickets.issue(account=deletion.account, user=deletion.user, provider="outlook", said=said)  # a late request's
    for table, theirs in (
        ("connect_tickets", "user_id <> 'usr_other'"),
        ("connect_sessions", "user_id <> 'usr_other'"),
        ("consents", "provider = 'outlook'"),
    ):
        await pool.execute(f"update {table} set expires_at = now() - interval '1 second' where {theirs}")

    running = asyncio.create_task(sweeping(tokens, Unknowable()).run())
    try:
        async with asyncio.timeout(20):
            while await remembered(tokens) != {"connect_tickets": 1, "connect_sessions": 1, "consents": 1}:
                await asyncio.sleep(0.03)
    finally:
        running.cancel()
    assert await pool.fetchval("select count(*) from connect_tickets where user_id = 'usr_other'") == 1
    assert await pool.fetchval("select count(*) from connect_sessions where user_id = 'usr_other'") == 1
    assert await pool.fetchval("select count(*) from consents where provider = 'gmail' and expires_at > now()") == 1


async def remembered(tokens: RefreshHouse) -> dict[str, int]:
    """How many rows of each kind there are."""
    tables = ("connect_tickets", "connect_sessions", "consents")
    return {table: await tokens.house.pool.fetchval(f"select count(*) from {table}") for table in tables}
