"""The streams of real processes, which are killed and ended while mail comes in through the real doors."""

import asyncio
import smtplib
import uuid
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import pytest

from gateways.local_ports import free_port as a_free_port
from gateways.local_servers import Servers
from tests.support.main_words import Installed
from tests.support.servers import create_database, drop_database
from tests.support.sse_client import SseReader, sse

KILLS = 3
MAILS = 40


@pytest.fixture(scope="module")
def installation(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    name = f"test_{uuid.uuid4().hex}"
    installation = Installed.at(
        tmp_path_factory.mktemp("data"),
        kafka=servers.kafka,
        database_url=create_database(servers, name),
        topic_prefix=f"{name}.",
        http=f"127.0.0.1:{a_free_port()}",
        smtp=f"127.0.0.1:{a_free_port()}",
    )
    assert installation.says("provision").code == 0
    with installation.running("work", "project", "smtp", name="others"):
        yield installation
    drop_database(servers, name)


class Watched:
    """A mailbox of an account, its stream, and the subjects that a reader who comes back after every break has seen."""

    def __init__(self, installation: Installed, key: str) -> None:
        self.url = f"http://{installation.environment['POSTLEDGER_HTTP']}"
        self.smtp = int(installation.environment["POSTLEDGER_SMTP"].rpartition(":")[2])
        self.bearer = {"Authorization": f"Bearer {key}"}
        self.address = self.token = ""
        self.seen: list[str] = []
        self.breaks = 0

    @property
    def events(self) -> str:
        return f"{self.url}/api/v1/mailboxes/{self.address}/events"

    async def open(self) -> None:
        asked = aiohttp.request("POST", f"{self.url}/api/v1/mailboxes", headers=self.bearer)
        async with asked as answer:
            assert answer.status == 201
            self.address = (await answer.json())["address"]
            self.token = answer.headers["X-Log-Position"]

    def send(self, numbers: range) -> None:
        with smtplib.SMTP("127.0.0.1", self.smtp) as smtp:
            for number in numbers:
                mail = f"From: ann@example.org\r\nSubject: {number}\r\n\r\nHello\r\n"
                smtp.sendmail("ann@example.org", [self.address], mail)

    async def read(self, count: int) -> None:
        while len(self.seen) < count:
            with suppress(aiohttp.ClientError, OSError):
                async with sse(self.events, self.bearer, last_id=self.token) as reader:
                    await self._read(reader, count)
            self.breaks += 1
            await asyncio.sleep(0.02)

    async def _read(self, reader: SseReader, count: int) -> None:
        assert reader.response.status == 200
        while len(self.seen) < count and (event := await reader.next(seconds=60)) is not None:
            assert event.type == "new_message"
            self.seen.append(event.facts["subject"])
            self.token = event.id


@pytest.mark.timeout(240)
async def test_a_reader_who_comes_back_after_every_kill_misses_and_repeats_nothing(installation: Installed) -> None:
    watched = Watched(installation, installation.says("account", "create", "--plan", "pro").row["key"])
    process = installation.begin("http", name="http")
    await asyncio.to_thread(process.until_ready)
    await watched.open()
    each = MAILS // (KILLS + 1)
    async with asyncio.timeout(200), asyncio.TaskGroup() as group:
        group.create_task(watched.read(MAILS))
        for begin in range(0, MAILS, each):
            await asyncio.to_thread(watched.send, range(begin, begin + each))
            if begin + each < MAILS:
                process.kill()
                process = installation.begin("http", name=f"http-{begin}")
                await asyncio.to_thread(process.until_ready)
    process.end()
    assert watched.breaks > KILLS
    assert watched.seen == [str(number) for number in range(MAILS)]


async def test_a_process_that_is_asked_to_end_ends_its_streams_first(installation: Installed) -> None:
    """Each client is told by itself when to come back, and nobody keeps the process waiting."""
    watched = Watched(installation, installation.says("account", "create", "--plan", "pro").row["key"])
    process = installation.begin("http", name="ending")
    await asyncio.to_thread(process.until_ready)
    await watched.open()

    async def watch() -> int | None:
        async with sse(watched.events, watched.bearer, last_id=watched.token) as reader:
            opened.release()
            assert await reader.next(seconds=30) is None
            return reader.retry_ms

    opened = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watch()) for _ in range(20)]
        for _ in watching:
            await opened.acquire()
        process.process.terminate()
        async with asyncio.timeout(5):
            retries = [await one for one in watching]
    assert len(set(retries)) > 10
    assert await asyncio.to_thread(process.process.wait, 5) == 0
