"""How long until somebody who watches an inbox hears of a mail."""

import asyncio
import time

import pytest

from tests.benchmarks.contenders import Contender, Postledger, absent, present, running
from tests.benchmarks.mails import letter, token
from tests.benchmarks.report import Report, quantiles
from tests.benchmarks.smtp_client import SmtpClient

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
ROUNDS = 2
MAILS, WARMING = 120, 20


async def one_at_a_time(contender: Contender) -> dict[str, list[float]]:
    """Milliseconds from before `connect` until `250`, and until the push, of each mail."""
    (box,) = await contender.boxes(1)
    mail, watching = letter(), asyncio.Event()
    awaited: dict[str, asyncio.Future[float]] = {}

    def heard(event: str) -> None:
        for name, pushed in awaited.items():
            if name in event and not pushed.done():
                pushed.set_result(time.perf_counter())

    watcher = asyncio.create_task(contender.watch(box, watching, heard))
    await watching.wait()
    until_250, until_pushed = [], []
    for number in range(WARMING + MAILS):
        name = token()
        awaited = {name: asyncio.get_running_loop().create_future()}
        began = time.perf_counter()
        client = await SmtpClient.connect(contender.smtp)
        await client.send(box, mail.wire(name))
        accepted = time.perf_counter()
        await client.close()
        pushed = await asyncio.wait_for(awaited[name], 10)
        if number >= WARMING:
            until_250.append((accepted - began) * 1e3)
            until_pushed.append((pushed - began) * 1e3)
        await asyncio.sleep(0.005)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    return {"connect_to_250_ms": until_250, "connect_to_pushed_ms": until_pushed}


async def test_a_mail_is_pushed() -> None:
    """One mail at a time over a connection of its own, to an inbox with one watcher (SSE; WebSocket at the rivals)."""
    report = Report("connect to pushed, one mail at a time")
    report.absent(absent())
    for turn in range(ROUNDS):
        for kind in present():
            async with running(kind) as contender:
                if isinstance(contender, Postledger):
                    await contender.hold(messages=1000)
                cpu = contender.tree.cpu_seconds()
                measured = await one_at_a_time(contender)
                cpu = contender.tree.cpu_seconds() - cpu
                figures = {name: quantiles(found) for name, found in measured.items()}
                report.add(kind.name, round=turn, mails=MAILS, cpu_ms_per_mail=round(cpu / MAILS * 1e3, 2), **figures)
    report.compare("connect_to_pushed_ms.p50")
    report.compare("connect_to_pushed_ms.p99")
