"""Kafka and Postgres stand still or are killed under a load of sends: no mail goes out twice, and none is forgotten.

Only `make faults` does it: it takes servers of its own, and minutes.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from random import Random

import pytest

from gateways.local_servers import HEALTHY_SECONDS, LocalServers
from tests.faults.send_checker import check
from tests.faults.send_installation import SendLoad, sending
from tests.faults.test_outages import family

FROZEN_SECONDS = 13
KILLS = 5

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.environ.get("FAULTS") != "full", reason="freezes and kills servers of its own for minutes"),
]


async def more_taken(load: SendLoad, loading: asyncio.Task[None], count: int = 5) -> None:
    """Sends are promised again. Where the load itself has failed, that is raised."""
    before = load.answers["taken"]
    async with asyncio.timeout(60):
        while load.answers["taken"] < before + count:
            if loading.done():
                loading.result()
            await asyncio.sleep(0.05)


async def test_sends_outlive_frozen_and_killed_servers(tmp_path, capsys):
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    local = LocalServers(tmp_path / "servers")
    (tmp_path / "house").mkdir()
    async with local as servers:
        watching = asyncio.create_task(local.watch())
        async with sending(servers, servers.database_url, "", tmp_path / "house") as found:
            roles = [await found.house.start("work"), await found.house.start("work", "project")]
            load = SendLoad(found, seed)
            loading = asyncio.create_task(load.run())
            await more_taken(load, loading, 20)
            for pid in list(local.pids.values()):
                stopped = family(pid)
                for member in stopped:
                    os.kill(member, signal.SIGSTOP)
                await asyncio.sleep(FROZEN_SECONDS)
                for member in stopped:
                    os.kill(member, signal.SIGCONT)
                await more_taken(load, loading)
            healthy = dict.fromkeys(local.pids, 0.0)
            for name in list(local.pids) * KILLS:
                # Killed any sooner it would be in a crash loop, and be given up on.
                await asyncio.sleep(healthy[name] - asyncio.get_running_loop().time())
                with suppress(ProcessLookupError):
                    os.kill(local.pids[name], signal.SIGKILL)
                await asyncio.sleep(1)
                await more_taken(load, loading)
                healthy[name] = asyncio.get_running_loop().time() + HEALTHY_SECONDS
            load.finishing.set()
            await loading
            await found.all_ended(120)
            assert [await role.stop() for role in roles] == [0, 0]
            observed = await found.observed()
            with capsys.disabled():
                shown = dict(Counter((observed.shown or {}).values()))
                sys.stdout.write(f"\nseed {seed}: {dict(load.answers)}; {shown}\n")
            assert check(observed) == []
        if watching.done():
            watching.result()
        watching.cancel()
