"""What an idle watcher costs."""

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.benchmarks.contenders import Postledger, running
from tests.benchmarks.mails import letter
from tests.benchmarks.report import Report
from tests.benchmarks.smtp_client import send_many

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
BOXES, WATCHERS_EACH = 10, 500
CONNECTING_AT_ONCE = 50


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(ours: Postledger, boxes: list[str], bounded: asyncio.Semaphore) -> list[Client]:
    return await asyncio.gather(*[watch(ours, box, bounded) for box in boxes])


async def close(clients: list[Client]) -> None:
    for _, writer in clients:
        writer.close()


async def watch(ours: Postledger, box: str, bounded: asyncio.Semaphore) -> Client:
    """An open stream whose first bytes have come, over a bare socket."""
    place = urlsplit(ours.http)
    async with bounded:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        bearer = ours.headers(box)["Authorization"]
        writer.write(
            f"GET /api/v1/mailboxes/{box}/events HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: {bearer}\r\n\r\n".encode()
        )
        await reader.readuntil(b"retry: ")
    return reader, writer


async def test_idle_watchers_cost_little() -> None:
    """5,000 SSE clients of ten inboxes: our memory before and with them; then a mail reaches the 500 of its inbox."""
    report = Report(f"{BOXES * WATCHERS_EACH} idle SSE clients")
    async with running(Postledger) as ours:
        boxes, bounded = await ours.boxes(BOXES), asyncio.Semaphore(CONNECTING_AT_ONCE)
        everyone = [box for box in boxes for _ in range(WATCHERS_EACH)]
        await close(await opened(ours, everyone[::50], bounded))  # once, so that pools and caches are what they will be
        await asyncio.sleep(2)
        before, parts, loop = ours.tree.memory(), ours.tree.pss_by_name(), asyncio.get_running_loop()
        began = loop.time()
        clients = await opened(ours, everyone, bounded)
        connected = loop.time() - began
        await asyncio.sleep(3)
        after, grown = ours.tree.memory(), ours.tree.pss_by_name()
        cpu = ours.tree.cpu_seconds()
        await asyncio.sleep(5)
        cpu = ours.tree.cpu_seconds() - cpu
        began = loop.time()
        await send_many(ours.smtp, [boxes[0]], 1, letter())
        told = [reader.readuntil(b"event: new_message") for reader, _ in clients[:WATCHERS_EACH]]
        await asyncio.wait_for(asyncio.gather(*told), 30)
        report.add(
            "postledger",
            clients=len(clients),
            kib_each_rss=round((after.rss - before.rss) * 1024 / len(clients), 2),
            kib_each_pss=round((after.pss - before.pss) * 1024 / len(clients), 2),
            kib_each_by_process={
                name: round((mib - parts.get(name, 0)) * 1024 / len(clients), 2) for name, mib in grown.items()
            },
            connects_per_s=round(len(clients) / connected),
            cpu_percent_idle=round(cpu / 5 * 100, 1),
            one_mail_to_500_clients_ms=round((loop.time() - began) * 1e3, 1),
        )
        await close(clients)
