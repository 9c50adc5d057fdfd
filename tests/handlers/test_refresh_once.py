"""Fifty workers in several processes and one expired token: one refresh, and the same new token for all (D-07)."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from domain.connection_events import TokenRefreshed
from tests.faults.connected import CLIENT, SECRET
from tests.support.own_child import OwnChild
from tests.support.refresh_house import Account, RefreshHouse

PROCESS = Path(__file__).parents[1] / "support" / "refresh_process.py"
PROCESSES, WORKERS = 4, 50


async def start(tokens: RefreshHouse, account: Account, number: int, **more: Any) -> OwnChild:
    """One process, with its share of the workers, that waits for its sign."""
    settings = tokens.house.settings
    told = {
        "kafka": settings.kafka,
        "prefix": settings.topic_prefix,
        "database": settings.plain("database_url"),
        "keyset": str(settings.keyset_path),
        "issuer": tokens.server.issuer,
        "client": CLIENT,
        "secret": SECRET,
        "connection": account.connection,
        "holder": f"process {number}",
        "workers": len(range(number, WORKERS, PROCESSES)),
        "timeout": 5,
        "timer": False,
        "refused": None,
    }
    return await OwnChild.start("refresh", [sys.executable, PROCESS], told=told | more, seconds=60)


async def all_at_once(tokens: RefreshHouse, account: Account, **more: Any) -> list[Any]:
    """What each of the workers got."""
    children = await asyncio.gather(*[start(tokens, account, number, **more) for number in range(PROCESSES)])
    try:
        got = await asyncio.gather(*[child.ask("go") for child in children])
        assert all("Traceback" not in child.said for child in children), [child.said for child in children]
    finally:
        for child in children:
            await child.stop()
    return [json.dumps(one) for each in got for one in each]


@pytest.mark.parametrize("slow_ms", [0, 2000])
async def test_fifty_workers_lead_to_one_refresh(tokens: RefreshHouse, slow_ms):
    await tokens.server.control(mode="strict", tokenLatencyMs=slow_ms)
    account = await tokens.connect(expired=True)
    got = await all_at_once(tokens, account)
    assert len(got) == WORKERS
    (token,) = set(got)
    held = await tokens.house.vault.get(account.connection)
    assert json.loads(token) == [held.secrets.access_token, 2]
    await one_refresh(tokens, account)


async def test_the_timer_at_the_same_moment_changes_nothing(tokens: RefreshHouse):
    """The timers of five processes, of the house among them, and those who ask."""
    await tokens.server.control(mode="strict", tokenLatencyMs=300)
    account = await tokens.connect(due=True)
    got = await all_at_once(tokens, account, timer=True)
    assert len(set(got)) == 1
    await one_refresh(tokens, account)


async def test_a_refused_token_is_replaced_once_whoever_says_so(tokens: RefreshHouse):
    await tokens.server.control(mode="strict", tokenLatencyMs=100)
    account = await tokens.connect()
    got = await all_at_once(tokens, account, refused=account.version)
    assert len(set(got)) == 1
    assert json.loads(got[0])[1] == 2
    await one_refresh(tokens, account)


async def one_refresh(tokens: RefreshHouse, account: Account) -> None:
    (refreshed,) = await tokens.happened(account, TokenRefreshed)
    assert refreshed.version == 2
    await tokens.row(account, lambda row: row["token_version"] == 2)
    counts = await tokens.counts(account)
    assert (counts["refreshes"], counts["refusedRefreshes"], counts["maxConcurrent"]) == (1, 0, 1)
