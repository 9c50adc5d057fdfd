"""How fast sends go out, against a bare loop of POSTs and against a job queue in Postgres, at the same double of Gmail.

Ours is asked for, decided, dispatched, granted, drafted, noted, sent, reported and folded; a job of procrastinate is
deferred, fetched, sent and marked; the loop keeps nothing and tells nobody.
"""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateways.local_servers import Servers
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.vault import Vault
from tests.benchmarks.process_tree import ProcessTree
from tests.benchmarks.report import Report, quantiles
from tests.faults.installation import Installation, installed
from tests.support.gmail.double import GmailFake, Token
from tests.support.graph.double import GraphFake
from tests.support.graph.double import Token as GraphToken
from tests.support.send_house import Mailbox, SendHouse

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SENDS = int(os.environ.get("BENCH_SENDS", "2000"))
#: Whether all roles are one process.
TOGETHER = os.environ.get("BENCH_TOGETHER") == "1"
MAILBOXES = 32
ROUNDS = 2
AT_ONCE = 32
#: A double that is as quick as it can be: no limits, no lag; receipts are written, and synced by nobody.
FAST: dict[str, Any] = {
    "messageId": "kept", "indexLag": 0.0, "threadsByHeaders": False, "unitsPerUser": None, "unitsPerProject": None,
    "unitsPerDay": None, "sendsPerDay": None, "recipientsPerDay": None, "concurrentPerUser": None, "fsync": False,
}  # fmt: skip
TOKEN = "bench"


@dataclass
class Parts:
    """What a SendHouse needs of a house, beside the installation whose roles are other processes."""

    pool: Any
    keyring: Any
    keyset: Any
    vault: Vault
    command_log: Any


@asynccontextmanager
async def sending(
    servers: Servers, database: str, prefix: str, folder: Path, **gmail: Any
) -> AsyncIterator[tuple[SendHouse, Installation]]:
    """An installation whose worker is a process of its own, with mailboxes at a fast double."""
    async with (
        GmailFake({TOKEN: Token("loop@mail.test")}, **(FAST | gmail)) as google,
        GraphFake({"-": GraphToken("-")}) as graph,
        installed(
            servers, database, prefix, folder, google_api_url=google.url, microsoft_graph_url=graph.url,
            allow_private_hosts=True,
        ) as house,
    ):  # fmt: skip
        keyset = open_keyset(house.settings.keyset_path)
        vault = Vault(house.pool, LocalKeys(keyset), keyset)
        parts = Parts(house.pool, house.keyring, keyset, vault, house.command_log)
        yield SendHouse(parts, google, graph, house.log, folder, scale=1.0), house


async def started(installation: Installation) -> None:
    """The roles that a send needs, each in a process of its own as `compose.yaml` has them, or all in one as `up` has."""
    if TOGETHER:
        await installation.start("work", "project")
    else:
        await asyncio.gather(installation.start("work"), installation.start("project"))


async def sent_by_us(house: SendHouse, mailboxes: list[Mailbox], count: int) -> float:
    """Seconds until so many sends are in the tables as sent, from the first that was asked for."""
    before = await sent(house)
    room = asyncio.Semaphore(200)

    async def ask(number: int) -> None:
        async with room:
            await house.send(mailboxes[number % len(mailboxes)])

    began = time.perf_counter()
    await asyncio.gather(*[ask(number) for number in range(count)])
    while await sent(house) < before + count:
        await asyncio.sleep(0.02)
    return time.perf_counter() - began


async def sent(house: SendHouse) -> int:
    return int(await house.house.pool.fetchval("select count(*) from sends where status = 'sent'"))


def raw_mail() -> str:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "loop@mail.test", "bob@example.org", "Tea at four"
    mail.set_content("It is served.")
    return base64.urlsafe_b64encode(mail.as_bytes()).decode()


async def post(http: aiohttp.ClientSession, url: str, raw: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with http.post(f"{url}/gmail/v1/users/me/messages/send", json={"raw": raw}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def sent_by_a_loop(gmail: GmailFake, count: int) -> float:
    waiting, raw = iter(range(count)), raw_mail()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as http:

        async def work() -> None:
            for _ in waiting:
                await post(http, gmail.url, raw)

        began = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(AT_ONCE)])
        return time.perf_counter() - began


async def drafted_by_a_loop(gmail: GmailFake, count: int) -> float:
    """Seconds for so many mails in two calls each, as ours are sent, and nothing kept of any."""
    waiting, raw = iter(range(count)), raw_mail()
    drafts, headers = f"{gmail.url}/gmail/v1/users/me/drafts", {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE), headers=headers) as http:

        async def work() -> None:
            for _ in waiting:
                async with http.post(drafts, json={"message": {"raw": raw}}) as made:
                    draft = (await made.json())["id"]
                async with http.post(f"{drafts}/send", json={"id": draft}) as sent:
                    assert sent.status == 200, await sent.text()

        began = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(AT_ONCE)])
        return time.perf_counter() - began


async def sent_by_procrastinate(database: str, gmail: GmailFake, count: int) -> float:
    """A job for each send, as its manual shows: deferred one by one, worked off by a worker in this process."""
    procrastinate = pytest.importorskip("procrastinate")
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=database, min_size=4, max_size=20))
    raw, done = raw_mail(), 0
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE))
    finished = asyncio.Event()

    @app.task(name="send")
    async def send(mail: str) -> None:
        nonlocal done
        await post(http, gmail.url, mail)
        done += 1
        if done == count:
            finished.set()

    async with app.open_async(), http:
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False, listen_notify=True)
        )
        room = asyncio.Semaphore(20)

        async def defer() -> None:
            async with room:
                await send.defer_async(mail=raw)

        began = time.perf_counter()
        await asyncio.gather(*[defer() for _ in range(count)])
        await finished.wait()
        seconds = time.perf_counter() - began
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return seconds


async def test_dispatch(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> None:
    """Each of ours with its intent, its draft and its outcome durable before and after the calls."""
    report = Report(f"{SENDS} sends over {MAILBOXES} mailboxes")
    everything = ProcessTree(os.getpid())
    async with sending(servers, database, topic_prefix, tmp_path) as (house, installation):
        await started(installation)
        mailboxes = [await house.connect() for _ in range(MAILBOXES)]
        await sent_by_us(house, mailboxes, 200)
        for turn in range(ROUNDS):
            for side in ("postledger", "aiohttp loop", "procrastinate"):
                cpu = everything.cpu_seconds()
                if side == "postledger":
                    seconds = await sent_by_us(house, mailboxes, SENDS)
                elif side == "aiohttp loop":
                    seconds = await sent_by_a_loop(house.gmail, SENDS)
                else:
                    seconds = await sent_by_procrastinate(database, house.gmail, SENDS)
                report.add(
                    side,
                    round=turn,
                    sends_per_s=round(SENDS / seconds, 1),
                    cpu_ms_for_each=round((everything.cpu_seconds() - cpu) / SENDS * 1e3, 2),
                )
        assert len({one.marker for one in house.gmail.receipts() if one.marker}) == ROUNDS * SENDS + 200
    report.compare("sends_per_s")


async def test_dispatch_at_a_provider_that_takes_its_time(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    """100 ms for each call, two calls for each send, 32 calls in flight: 160 a second, if the double took no time itself."""
    report = Report("sends at 100 ms a call, 32 in flight")
    async with sending(servers, database, topic_prefix, tmp_path, latency=0.1) as (house, installation):
        await started(installation)
        mailboxes = [await house.connect() for _ in range(4)]  # eight of one mailbox are under way at once
        await sent_by_us(house, mailboxes, 64)
        count = 3200  # twenty seconds: to begin and to end takes one of them
        seconds = await sent_by_us(house, mailboxes, count)
        report.add("postledger", sends_per_s=round(count / seconds, 1), in_flight=32)
        seconds = await drafted_by_a_loop(house.gmail, count)
        report.add("aiohttp loop", sends_per_s=round(count / seconds, 1), in_flight=AT_ONCE)
        report.add("without a double", sends_per_s=round(AT_ONCE / 0.2, 1))
    report.compare("sends_per_s")


async def test_one_hung_account_and_the_others(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    """From being asked for to being sent, ten a second over 16 mailboxes, without and with one more that hangs."""
    report = Report("asked to sent beside a hung account, ms")
    async with sending(servers, database, topic_prefix, tmp_path) as (house, installation):
        await started(installation)
        mailboxes = [await house.connect() for _ in range(16)]
        hung = await house.connect()
        await sent_by_us(house, mailboxes, 200)
        for turn in range(ROUNDS):
            for side in ("alone", "postledger"):
                if side == "postledger":
                    await house.gmail.fail("drafts.create", user=hung.address, delay=20, times=1000)
                    for _ in range(100):
                        await house.send(hung)
                latencies = await paced(house, mailboxes, count=300, each_second=20)
                report.add(side, round=turn, ms=quantiles(latencies), p95=latencies[int(len(latencies) * 0.95)])
    report.compare("p95")


async def paced(house: SendHouse, mailboxes: list[Mailbox], *, count: int, each_second: int) -> list[float]:
    """Milliseconds from asking to sent, by the tables' own times, sorted."""
    sends = []
    for number in range(count):
        sends.append(await house.send(mailboxes[number % len(mailboxes)]))
        await asyncio.sleep(1 / each_second)
    for send in sends:
        await house.becomes(send, "sent", seconds=60)
    rows = await house.house.pool.fetch(
        "select extract(epoch from sent_at - created_at) * 1000 as ms from sends where send = any($1)", sends
    )
    return sorted(float(row["ms"]) for row in rows)
