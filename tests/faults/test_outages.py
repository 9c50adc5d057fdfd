"""Kafka or Postgres stand still or are gone under load: doors say "later" within ten seconds, promise nothing, and recover.

The usual run freezes each of them once; `FAULTS=full` also kills each of them twenty times.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest

from gateways.local_servers import HEALTHY_SECONDS, LocalServers
from tests.faults.installation import Installation, Role, installed
from tests.faults.load import Load
from tests.faults.looking import violations

FULL = os.environ.get("FAULTS") == "full"
#: Seconds in which a door answers whatever has happened to its servers, and a little for this machine.
ANSWERS_WITHIN = 10.0 + 0.5
FROZEN_SECONDS = 30 if FULL else 13
KILLS = 20
#: Rates are counted, as at any door, and nobody here comes near them.
RATES = {"rates": "on", "creations_per_minute": 1_000_000, "requests_per_second": 1_000_000}

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not FULL, reason="freezes servers of its own for minutes: `make faults` does"),
]


@dataclass
class Outage:
    """An installation on servers of its own, which are started again when they end."""

    local: LocalServers
    house: Installation


@pytest.fixture
async def outage(tmp_path) -> AsyncIterator[Outage]:
    local = LocalServers(tmp_path / "servers")
    (tmp_path / "house").mkdir()
    async with local as servers:
        watching = asyncio.create_task(local.watch())
        async with installed(servers, servers.database_url, "", tmp_path / "house", **RATES) as house:
            yield Outage(local, house)
        if watching.done():
            watching.result()
        watching.cancel()


class Caller:
    """Somebody who asks for inboxes over HTTP all the time."""

    def __init__(self, house: Installation) -> None:
        self.url = f"http://{house.settings.http}/api/v1/mailboxes"
        self.answers: Counter[int] = Counter()
        self.slowest = 0.0
        self.without_retry_after = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
            while True:
                began = loop.time()
                async with session.post(self.url) as answer:
                    await answer.read()
                    self.answers[answer.status] += 1
                    self.without_retry_after += answer.status == 503 and "Retry-After" not in answer.headers
                self.slowest = max(self.slowest, loop.time() - began)
                await asyncio.sleep(0.1)


async def another_opened(caller: Caller, calling: asyncio.Task[None]) -> None:
    """An inbox can be opened again. Where the caller itself has failed, that is raised."""
    before = caller.answers[201]
    async with asyncio.timeout(60):
        while caller.answers[201] == before:
            if calling.done():
                calling.result()
            await asyncio.sleep(0.05)


def resident(role: Role) -> int:
    """Bytes of memory that the process holds."""
    return int(Path(f"/proc/{role.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def family(pid: int) -> list[int]:
    """A process and all that descend from it: Postgres answers from children of its own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


async def more_kept(load: Load, loading: asyncio.Task[None], count: int = 5) -> None:
    """Mail goes through again. Where the load itself has failed, that is raised, and no fault of the house."""
    before = load.kept
    async with asyncio.timeout(60):
        while load.kept < before + count:
            if loading.done():
                loading.result()
            await asyncio.sleep(0.05)


async def test_frozen_and_killed_servers_cost_time_and_nothing_else(outage, capsys):
    own, house = outage.local, outage.house
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    await house.with_mailboxes(4)
    doors = await house.start("http", "smtp")
    rest = await house.start("work", "project")
    load, caller = Load(house, seed), Caller(house)
    loading, calling = asyncio.create_task(load.run()), asyncio.create_task(caller.run())
    await more_kept(load, loading, 30)
    before = resident(doors)
    for name, pid in own.pids.items():
        refused = load.refused
        stopped = family(pid)
        for member in stopped:
            os.kill(member, signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        for member in stopped:
            os.kill(member, signal.SIGCONT)
        await more_kept(load, loading)
        await another_opened(caller, calling)
        assert load.refused > refused, f"{name} stood still and nobody noticed"
    healthy = dict.fromkeys(own.pids, 0.0)
    for name in list(own.pids) * (KILLS if FULL else 0):
        # Killed any sooner it would be in a crash loop, and be given up on.
        await asyncio.sleep(healthy[name] - asyncio.get_running_loop().time())
        with suppress(ProcessLookupError):
            os.kill(own.pids[name], signal.SIGKILL)
        await asyncio.sleep(1)
        await more_kept(load, loading)
        healthy[name] = asyncio.get_running_loop().time() + HEALTHY_SECONDS
    await another_opened(caller, calling)
    after = resident(doors)
    calling.cancel()
    load.finishing.set()
    async with asyncio.timeout(60):
        await loading
    await house.quiet()
    assert [await doors.stop(), await rest.stop()] == [0, 0]
    with capsys.disabled():
        sys.stdout.write(
            f"\nseed {seed}: SMTP {dict(load.answers)}, slowest {load.slowest_answer:.1f} s; HTTP {dict(caller.answers)}, "
            f"slowest {caller.slowest:.1f} s; memory of the doors {before >> 20} → {after >> 20} MiB\n"
        )
    assert set(load.answers) <= {"220", "221", "250", "354", "421", "451"}
    assert set(caller.answers) <= {201, 503}
    assert caller.without_retry_after == 0
    assert max(load.slowest_answer, caller.slowest) < ANSWERS_WITHIN
    assert after - before < 50 << 20
    assert await violations(house) == []
