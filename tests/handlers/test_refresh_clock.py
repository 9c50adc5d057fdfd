"""The clock of refreshing: providers that hang, what nobody hears, and processes that are asked to end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from domain.connection_events import TokenRefreshed
from domain.tokens import Refreshed, Secrets
from gateways.log.command_log import CommandLog
from gateways.stores.due_tokens import DUE, DueToken
from handlers.refresh import Refreshing
from handlers.reporting import Reports
from tests.support.refresh_house import Account, RefreshHouse
from tests.support.tcp_proxies import TcpProxies


class Only:
    """The clock of one test: these accounts are due, and no timer knows of them but its own."""

    def __init__(self, *due: DueToken, provider: str = "gmail") -> None:
        self.accounts, self.provider = list(due), provider
        self.limits: list[int] = []

    async def due(self, provider: str, limit: int) -> Sequence[DueToken]:
        self.limits.append(limit)
        found, self.accounts = self.accounts[:limit], self.accounts[limit:]
        return found if provider == self.provider else []


class Hangs:
    """A provider that answers when the test says so."""

    def __init__(self) -> None:
        self.asked, self.answers = 0, asyncio.Event()

    async def refresh(self, secrets: Secrets) -> Refreshed:
        self.asked += 1
        await self.answers.wait()
        return Refreshed(Secrets(f"new {self.asked}", "new refresh", None), rotated=True)


@asynccontextmanager
async def running(refreshing: Refreshing) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(refreshing.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def seen(holds: Any, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_a_provider_that_hangs_with_all_its_room_holds_up_no_other(tokens: RefreshHouse, monkeypatch):
    monkeypatch.setattr("handlers.refresh.AT_ONCE", 4)
    hung = [await tokens.connect(tell=False) for _ in range(8)]
    well = await tokens.connect("outlook", tell=False)
    hangs, answers = Hangs(), Hangs()
    answers.answers.set()

    class Both(Only):
        async def due(self, provider: str, limit: int) -> Sequence[DueToken]:
            if provider == "outlook":
                return [DueToken(well.connection, well.user, 1)] if hangs.asked >= 4 and not answers.asked else []
            return await super().due(provider, limit)

    due = Both(*[DueToken(one.connection, one.user, 1) for one in hung])
    refreshing, _ = tokens.refreshing(due=due, connectors={"gmail": hangs, "outlook": answers}, timeout=30)
    async with running(refreshing):
        await seen(lambda: _is_version(tokens, well.connection, 2))
        assert hangs.asked == 4
        hangs.answers.set()


async def _is_version(tokens: RefreshHouse, connection: str, version: int) -> bool:
    held = await tokens.house.vault.get(connection)
    return held.version == version


async def test_a_process_that_is_asked_to_end_lets_a_refresh_end(tokens: RefreshHouse):
    account, hangs = await tokens.connect(tell=False), Hangs()
    due = Only(DueToken(account.connection, account.user, 1))
    refreshing, _ = tokens.refreshing(due=due, connectors={"gmail": hangs}, timeout=30)
    async with running(refreshing) as task:
        while not hangs.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.2)
        assert not task.done()
        hangs.answers.set()
        await asyncio.wait([task], timeout=5)
        assert task.done()
    held = await tokens.house.vault.get(account.connection)
    assert (held.secrets.access_token, held.version) == ("new 1", 2)
    assert await tokens.leased_for(account) == 0


async def test_it_waits_for_a_provider_that_hangs_only_so_long(tokens: RefreshHouse, monkeypatch):
    monkeypatch.setattr("handlers.refresh.END_SECONDS", 0.3)
    account, hangs = await tokens.connect(tell=False), Hangs()
    due = Only(DueToken(account.connection, account.user, 1))
    refreshing, _ = tokens.refreshing(due=due, connectors={"gmail": hangs}, timeout=30)
    async with running(refreshing) as task:
        while not hangs.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.done()
    assert await tokens.leased_for(account) > 10, "the provider may still be dealing with it: nobody else asks yet"


async def test_what_was_claimed_as_the_end_came_is_let_go(tokens: RefreshHouse):
    account, claims, goes_on = await tokens.connect(tell=False), asyncio.Event(), asyncio.Event()
    vault, hangs = tokens.house.vault, Hangs()

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(vault, name)

        async def lease(self, connections: Sequence[str], **more: Any) -> Any:
            found = await vault.lease(connections, **more)
            claims.set()
            await goes_on.wait()
            return found

    due = Only(DueToken(account.connection, account.user, 1))
    refreshing, _ = tokens.refreshing(due=due, vault=Slow(), connectors={"gmail": hangs})
    async with running(refreshing) as task:
        await claims.wait()
        task.cancel()
        await asyncio.sleep(0.1)
        goes_on.set()
        await asyncio.wait([task], timeout=5)
    assert hangs.asked == 0
    assert await tokens.leased_for(account) == 0


class Counts(Reports):
    """Reports, counted."""

    def __init__(self, log: Any) -> None:
        super().__init__(log)
        self.said: list[Any] = []

    async def refresh(self, report: Any) -> None:
        self.said.append(report)
        await super().refresh(report)


async def test_what_was_refreshed_while_the_log_was_down_is_reported_later_without_a_call(
    tokens: RefreshHouse, free_port
):
    """The timer of the house reports it, five seconds after the switch, from what the vault holds."""
    host, _, port = (tokens.house.settings.kafka or "").partition(":")
    with TcpProxies() as proxies:
        proxy = proxies.open(("127.0.0.1", free_port), (host, int(port)))
        proxy.cut()
        log = CommandLog(f"127.0.0.1:{free_port}", prefix=tokens.house.prefix)
        try:
            account = await tokens.connect(due=True)
            reports = Counts(log)
            refreshing, _ = tokens.refreshing(reports=reports)
            got = await refreshing.access_token(account.connection, refused=1)
        finally:
            await log.close()
    assert got.version == 2
    assert len(reports.said) == 1
    row = await tokens.row(account, lambda row: row["token_version"] == 2)
    assert row["state"] == "active"
    (refreshed,) = await tokens.happened(account, TokenRefreshed)
    assert (refreshed.version, refreshed.asked_by) == (2, "timer")
    assert (await tokens.counts(account))["refreshes"] == 1


async def test_what_nobody_folds_is_reported_less_and_less_often(tokens: RefreshHouse, monkeypatch):
    """Commands must not pile up while deciders or projectors are down."""
    monkeypatch.setattr("handlers.refresh.LOOK_SECONDS", 0.02)
    account = await tokens.connect(tell=False)
    hangs, reports = Hangs(), Counts(tokens.house.command_log)

    class Always(Only):
        async def due(self, provider: str, limit: int) -> Sequence[DueToken]:
            self.limits.append(limit)
            return [DueToken(account.connection, account.user, 0), DueToken("con_gone", account.user, 1)]

    due = Always()
    refreshing, _ = tokens.refreshing(due=due, connectors={"gmail": hangs}, reports=reports)
    refreshing._unheard._first = refreshing._missing._first = 0.2
    async with running(refreshing):
        await asyncio.sleep(2.5)
    for connection in (account.connection, "con_gone"):
        said = [report for report in reports.said if report.connection == connection]
        assert 3 <= len(said) <= 5, "after 0, 0.2, 0.6, 1.4 and 3 seconds"
    assert len(due.limits) > 10
    assert max(due.limits) == due.limits[0] + 1, (
        "those that are gone are asked for beside the others: they take no room"
    )
    assert hangs.asked == 0


async def test_the_due_of_one_provider_are_those_of_no_other(tokens: RefreshHouse):
    await tokens.server.control(failNext={"status": 429, "headers": {"retry-after": "600"}, "times": 2})
    ours = {provider: await tokens.connect(provider, due=True) for provider in ("gmail", "outlook")}
    for account in ours.values():
        await tokens.row(account, lambda row: row["last_error"] == "rate_limited")
        await seen(partial(_is_free, tokens, account))
    async with tokens.house.pool.acquire() as connection, connection.transaction():
        await connection.execute("update connections set refresh_due = now() where last_error = 'rate_limited'")
        for provider, account in ours.items():
            assert [DueToken(*row) for row in await connection.fetch(DUE, provider, 100)] == [
                DueToken(account.connection, account.user, 1)
            ]
        await connection.execute(
            "update connections set refresh_due = now() + interval '1 hour' where state = 'active'"
        )


async def _is_free(tokens: RefreshHouse, account: Account) -> bool:
    return await tokens.leased_for(account) == 0


async def test_many_that_are_due_at_once_are_refreshed_once_each(tokens: RefreshHouse):
    await tokens.server.control(mode="strict")
    accounts = await asyncio.gather(*[tokens.connect(due=True) for _ in range(150)])
    others = [tokens.refreshing()[0] for _ in range(2)]
    async with running(others[0]), running(others[1]):
        for account in accounts:
            await tokens.row(account, lambda row: row["token_version"] == 2, seconds=30)
    users = (await tokens.server.counts())["users"]
    assert {users[one.login]["refreshes"] for one in accounts} == {1}
    assert {users[one.login]["maxConcurrent"] for one in accounts} == {1}
