"""How soon `up` is ready, and what it takes while nothing happens."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gateways.kafka_jars import VERSION
from gateways.local_servers import CACHE
from tests.benchmarks.contenders import Postledger, running, start, stop
from tests.benchmarks.report import Report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
WARM_STARTS = 3


async def test_up_is_ready_again() -> None:
    """On a data folder that is there: until SMTP and HTTP answer and `/readyz` says yes. Then its memory after a while."""
    report = Report("up, ready in seconds, warm")
    async with running(Postledger) as ours:
        for turn in range(WARM_STARTS):
            await stop(ours)
            seconds = await start(ours)
            report.add(
                "postledger", round=turn, seconds=round(seconds, 2), cpu_seconds=round(ours.tree.cpu_seconds(), 2)
            )
        report.compare("seconds")
        await asyncio.sleep(10)
        memory, cpu = ours.tree.memory(), ours.tree.cpu_seconds()
        await asyncio.sleep(5)
        idle = Report("all processes, idle")
        idle.add(
            "postledger",
            rss_mib=memory.rss,
            pss_mib=memory.pss,
            cpu_percent=round((ours.tree.cpu_seconds() - cpu) / 5 * 100, 1),
        )


async def test_up_is_ready_the_first_time(tmp_path: Path) -> None:
    """On an empty folder, with Kafka's jars in the cache and nothing else: no formatted template, no AOT cache."""
    jars = CACHE.expanduser() / f"kafka-{VERSION}"
    if not jars.is_dir():
        pytest.skip("Kafka's jars are not in the cache yet: start `main.py up` once")
    report = Report("up, ready in seconds, first time with the jars cached")
    home = tmp_path / "home"
    shutil.copytree(jars, home / ".cache/postledger" / jars.name)

    class FirstTime(Postledger):
        def environment(self) -> dict[str, str]:
            return super().environment() | {"HOME": str(home)}

    async with running(Postledger):
        pass  # what the operating system reads from disk once, it has read
    async with running(FirstTime) as ours:
        report.add("postledger", seconds=round(ours.ready_seconds, 2), cpu_seconds=round(ours.tree.cpu_seconds(), 2))
