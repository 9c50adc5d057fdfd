"""How fast tokens are refreshed when many are due at once, against a bare loop at the same authorization server."""

import asyncio
import os
import time
from pathlib import Path

import aiohttp
import pytest

from domain.provider_scopes import DEFAULT_SCOPES
from gateways.local_servers import Servers
from tests.benchmarks.process_tree import ProcessTree
from tests.benchmarks.report import Report
from tests.faults.connected import CLIENT, SECRET, Accounts, connected
from tests.support.oauth_server.server import OAuthServer

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "10000"))
ROUNDS = 2
#: Requests of the bare loop under way at once: as many as a worker has.
AT_ONCE = 64
HOUR = 3600


async def refreshed_by_us(accounts: Accounts, version: int) -> float:
    """Seconds until every connection has a token of this version in the vault, all of them being due from now on."""
    began = time.perf_counter()
    await accounts.house.pool.execute("update connections set refresh_due = now()")
    while await accounts.house.pool.fetchval("select count(*) from vault where version < $1", version):
        await asyncio.sleep(0.1)
    seconds = time.perf_counter() - began
    while await accounts.house.pool.fetchval("select count(*) from connections where token_version < $1", version):
        await asyncio.sleep(0.1)
    return seconds


async def refreshed_by_a_loop(server: OAuthServer, tokens: list[str]) -> float:
    """Seconds that the same refreshes take a client that keeps nothing and tells nobody."""
    waiting = iter(tokens)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as http:

        async def work() -> None:
            for token in waiting:
                form = {
                    "grant_type": "refresh_token",
                    "refresh_token": token,
                    "client_id": CLIENT,
                    "client_secret": SECRET,
                }
                async with http.post(server.token_url, data=form) as answer:
                    assert "access_token" in await answer.json()

        began = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(AT_ONCE)])
        return time.perf_counter() - began


async def test_tokens_that_are_due_at_once(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> None:
    """Each of ours: a lease, a call, a switch, a command; and the event, folded."""
    report = Report(f"{CONNECTIONS} tokens due at once")
    everything = ProcessTree(os.getpid())
    async with connected(servers, database, topic_prefix, tmp_path, mode="google", accounts=0) as accounts:
        server = accounts.server
        await server.control(accessTokenLifetime=HOUR)
        await accounts.house.start("work", "project")
        await accounts.connect(CONNECTIONS, life=HOUR)
        await accounts.shown(CONNECTIONS, seconds=300)
        scope = " ".join(DEFAULT_SCOPES["gmail"])
        others = await server.seed(CONNECTIONS, client=CLIENT, scope=scope, domain="others.test")
        for turn in range(ROUNDS):
            for side in ("postledger", "aiohttp loop"):
                calls, cpu = (await server.counts())["total"]["refreshes"], everything.cpu_seconds()
                if side == "postledger":
                    seconds = await refreshed_by_us(accounts, turn + 2)
                else:
                    seconds = await refreshed_by_a_loop(server, [each.refresh_token for each in others])
                report.add(
                    side,
                    round=turn,
                    refreshes_per_s=round(CONNECTIONS / seconds),
                    calls_for_each=((await server.counts())["total"]["refreshes"] - calls) / CONNECTIONS,
                    cpu_ms_for_each=round((everything.cpu_seconds() - cpu) / CONNECTIONS * 1e3, 2),
                )
    report.compare("refreshes_per_s")
