"""What is measured: our own house, and other mail catchers where their programs are under $PEERS/bin.

All of them take mail by SMTP on a loopback port, list it over HTTP and push what is new; each is a process tree of its
own with a fresh folder, started and ended by `running`. Ours is `main.py up`: Kafka, Postgres and all roles.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from gateways.local_ports import free_port
from tests.benchmarks.process_tree import ProcessTree
from tests.support.main_words import MAIN, Installed

PEERS = Path(os.environ.get("PEERS", "~/.cache/postledger-peers")).expanduser()
Heard = Callable[[str], None]


@dataclass
class Contender:
    """One mail catcher on ports of its own. `keeps` is what a `250` of it stands on."""

    session: aiohttp.ClientSession
    folder: Path
    smtp: tuple[str, int] = field(default_factory=lambda: ("127.0.0.1", free_port()))
    http_port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    ready_seconds: float = 0.0

    name: ClassVar[str]
    keeps: ClassVar[str]
    #: Whether all boxes are one list with one total.
    one_list: ClassVar[bool] = False

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def tree(self) -> ProcessTree:
        assert self.process
        return ProcessTree(self.process.pid)

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    async def boxes(self, count: int) -> list[str]:
        return [f"box{number}-{time.monotonic_ns()}@bench.example" for number in range(count)]

    def list_url(self, box: str, limit: int) -> str:
        raise NotImplementedError

    def headers(self, box: str) -> dict[str, str]:
        return {}

    def counted(self, document: Any) -> int:
        """How many mails a list has, by its JSON."""
        return len(document)

    async def count(self, box: str) -> int:
        async with self.session.get(self.list_url(box, 1000), headers=self.headers(box)) as answer:
            answer.raise_for_status()
            return self.counted(await answer.json(content_type=None))

    async def watch(self, box: str, watching: asyncio.Event, heard: Heard) -> None:
        """Passes on what is pushed about new mail, until cancelled."""
        async with self.session.ws_connect(self.http + self.push_path(), max_msg_size=0) as socket:
            watching.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    heard(message.data)

    def push_path(self) -> str:
        raise NotImplementedError

    async def is_ready(self) -> bool:
        """Whether it answers by SMTP and by HTTP."""
        try:
            reader, writer = await asyncio.open_connection(*self.smtp)
            banner = await reader.readline()
            writer.close()
            async with self.session.get(self.http + self.ready_path()) as answer:
                return banner.startswith(b"220") and answer.status < 400
        except (OSError, aiohttp.ClientError):
            return False

    def ready_path(self) -> str:
        return "/"


class Postledger(Contender):
    name = "postledger"
    keeps = "Kafka, fsync before 250"

    def __init__(self, session: aiohttp.ClientSession, folder: Path, **settings: str) -> None:
        super().__init__(session, folder)
        self._tokens: dict[str, str] = {}
        self.installed = Installed.at(
            self.folder / "data",
            http=f"127.0.0.1:{self.http_port}",
            smtp=f"127.0.0.1:{self.smtp[1]}",
            **{"rates": "off", **settings},
        )

    def command(self) -> list[str]:
        return [sys.executable, str(MAIN), "up"]

    def environment(self) -> dict[str, str]:
        return self.installed.environment

    async def hold(self, messages: int) -> None:
        """From now on an inbox holds so many messages: ten, the free plan, would end a benchmark early."""
        said = await asyncio.to_thread(self.installed.says, "plan", "set", "free", "--messages", str(messages))
        assert said.code == 0, said.err

    async def key(self) -> str:
        """An API key of a new account."""
        said = await asyncio.to_thread(self.installed.says, "account", "create", "--plan", "pro")
        assert said.code == 0, said.err
        return str(said.row["key"])

    async def boxes(self, count: int) -> list[str]:
        found = []
        for _ in range(count):
            async with self.session.post(f"{self.http}/api/v1/mailboxes?ttl_minutes=60") as answer:
                answer.raise_for_status()
                created = await answer.json()
            self._tokens[created["address"]] = created["session_token"]
            found.append(created["address"])
        return found

    def list_url(self, box: str, limit: int) -> str:
        return f"{self.http}/api/v1/mailboxes/{box}/messages?limit={limit}"

    def headers(self, box: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens[box]}"}

    async def watch(self, box: str, watching: asyncio.Event, heard: Heard) -> None:
        url = f"{self.http}/api/v1/mailboxes/{box}/events"
        async with self.session.get(url, headers=self.headers(box)) as answer:
            answer.raise_for_status()
            watching.set()
            async for line in answer.content:
                if line.startswith(b"data:"):
                    heard(line.decode())

    async def is_ready(self) -> bool:
        """It has said so itself, too: told to end before that, it would be ended by its guards."""
        return b"is ready after" in (self.folder / "said").read_bytes() and await super().is_ready()

    def ready_path(self) -> str:
        return "/readyz"


class Mailpit(Contender):
    name = "mailpit"
    keeps = "SQLite with WAL, synchronous=NORMAL: no fsync before 250"
    one_list = True

    def command(self) -> list[str]:
        return [
            *(str(PEERS / "bin/mailpit"), "--max", "0", "--disable-version-check"),
            *("--smtp", f"127.0.0.1:{self.smtp[1]}", "--listen", f"127.0.0.1:{self.http_port}"),
            *("--database", str(self.folder / "mailpit.db")),
        ]

    def list_url(self, box: str, limit: int) -> str:
        return f"{self.http}/api/v1/messages?limit={min(limit, 50)}"

    def counted(self, document: Any) -> int:
        return int(document["total"])

    def push_path(self) -> str:
        return "/api/events"


class Inbucket(Contender):
    name = "inbucket"
    keeps = "memory"

    def command(self) -> list[str]:
        return [str(PEERS / "bin/inbucket")]

    def environment(self) -> dict[str, str]:
        ours = {
            "SMTP_ADDR": f"127.0.0.1:{self.smtp[1]}",
            "WEB_ADDR": f"127.0.0.1:{self.http_port}",
            "POP3_ADDR": f"127.0.0.1:{free_port()}",
            "STORAGE_TYPE": "memory",
            "STORAGE_MAILBOXMSGCAP": "0",
            "SMTP_MAXMESSAGEBYTES": "52428800",
        }
        return os.environ | {f"INBUCKET_{name}": value for name, value in ours.items()}

    def list_url(self, box: str, limit: int) -> str:
        return f"{self.http}/api/v1/mailbox/{box.partition('@')[0]}"

    def push_path(self) -> str:
        return "/api/v2/monitor/messages"

    def ready_path(self) -> str:
        return "/api/v1/mailbox/nobody"


RIVALS: tuple[type[Contender], ...] = (Mailpit, Inbucket)


def present(wanted: Sequence[type[Contender]] = RIVALS) -> list[type[Contender]]:
    """Ourselves, and those of the wanted rivals whose program is there."""
    return [Postledger, *(rival for rival in wanted if (PEERS / "bin" / rival.name).is_file())]


def absent(wanted: Sequence[type[Contender]] = RIVALS) -> list[str]:
    return [rival.name for rival in wanted if rival not in present(wanted)]


@asynccontextmanager
async def running(kind: type[Contender], **settings: str) -> AsyncIterator[Any]:
    """A contender that is ready, with nothing in it; ended and removed when the block ends. `settings` are ours."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    connector = aiohttp.TCPConnector(limit=0)
    with tempfile.TemporaryDirectory(prefix=f"bench-{kind.name}-", ignore_cleanup_errors=True) as folder:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            contender = kind(session, Path(folder), **settings)
            await start(contender)
            try:
                yield contender
            finally:
                await stop(contender)


async def start(contender: Contender, *, seconds: float = 60) -> float:
    """Starts its program and waits until it answers; the seconds that took. Its words are in `said`."""
    began = time.perf_counter()
    with (contender.folder / "said").open("wb") as said:
        contender.process = await asyncio.create_subprocess_exec(
            *contender.command(),
            cwd=contender.folder,
            env=contender.environment() | {"TMPDIR": str(contender.folder)},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    async with asyncio.timeout(seconds):
        while not await contender.is_ready():
            if contender.process.returncode is not None:
                raise RuntimeError(f"{contender.name} ended: {(contender.folder / 'said').read_text()[-800:]}")
            await asyncio.sleep(0.005)
    contender.ready_seconds = time.perf_counter() - began
    return contender.ready_seconds


async def stop(contender: Contender) -> None:
    assert contender.process
    with suppress(ProcessLookupError):
        contender.process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(contender.process.wait(), 30)
    except TimeoutError:
        os.killpg(contender.process.pid, signal.SIGKILL)
        await contender.process.wait()


async def until_counted(contender: Contender, wanted: dict[str, int], *, seconds: float = 60) -> float:
    """When the last of the wanted mails (by box, how many) can be listed, as time.perf_counter().

    Looks box by box; one that is complete when first looked at does not move the clock, so the looking itself is not
    billed. Raises TimeoutError where mails are missing.
    """
    seen_at = time.perf_counter()
    async with asyncio.timeout(seconds):
        for place, (box, count) in enumerate(wanted.items()):
            looks = 0
            while await contender.count(box) < count:
                looks += 1
                await asyncio.sleep(0.002)
            if looks or place == 0:
                seen_at = time.perf_counter()
    return seen_at
