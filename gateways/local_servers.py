"""The embedded Kafka and Postgres of `up`, of the tests, and of whoever has neither.

    local = LocalServers(Path(".data"))
    async with local as servers:          # both ready; servers.kafka, servers.database_url
        await local.watch()               # restarts what dies; raises CannotStart when that is no use

A data folder has at most one owner at a time, by a lock on `up.lock` that the kernel gives back when the last of us is
gone: we ourselves, and the guards that end the servers after us (see local_children). Ports are chosen once for each
folder and remembered in `servers.json`, beside the address and the password, so that another command with the same
folder finds the servers (`running`) and a restart finds its clients waiting on the same ports.

Either of `kafka/` and `postgres/` may be deleted between two starts; an empty server takes its place. Whether the two
still tell one history is for their users to check.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from gateways.local_children import CannotStart, Child, trim
from gateways.local_kafka import LocalKafka
from gateways.local_ports import free_port, is_free
from gateways.local_postgres import LocalPostgres
from gateways.private_files import write_private

CACHE = Path("~/.cache/postledger")
_LEAST_FREE_BYTES = 200 * 1024 * 1024
_GUARDS_SECONDS = 15.0
#: Seconds that a server has to run for its next end to count as its first.
HEALTHY_SECONDS = 10.0
_RESTARTS = 6


@dataclass(frozen=True)
class Servers:
    """Where the two servers are: `kafka` as host:port, `database_url` as postgresql://role:password@host:port/name."""

    kafka: str
    database_url: str


class LocalServers:
    """Both servers of one data folder, started in parallel and stopped in order: Kafka, then Postgres.

    Given ports are used or refused; others are chosen. `cache` keeps what does not depend on the data: Kafka's jars,
    a formatted folder, the AOT cache. Entering raises CannotStart.
    """

    def __init__(
        self, data: Path, *, kafka_port: int | None = None, postgres_port: int | None = None, cache: Path = CACHE
    ) -> None:
        self._data = data.absolute()
        self._cache = cache.expanduser().absolute()
        self._wanted = {"kafka": kafka_port, "postgres": postgres_port}
        self._lock = -1
        self._children: dict[str, Child] = {}
        #: Called once the data folder is ours and before the servers start: what takes long to begin may begin beside them.
        self.on_locked: Callable[[], Awaitable[None]] = _nothing_more

    async def __aenter__(self) -> Servers:
        _make_folders(self._data, self._cache)
        self._lock = await _locked(self._data / "up.lock")
        try:
            await self.on_locked()
            return await self._start()
        except BaseException:
            await self._stop()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def watch(self) -> None:
        """Restart a server that ends, on its port and with back-off, until cancelled.

        Raises CannotStart when one cannot be restarted, or ends again and again.
        """
        watching = [
            asyncio.create_task(self._keep("kafka", self._kafka.start)),
            asyncio.create_task(self._keep("postgres", self._postgres.start)),
            asyncio.create_task(self._keep_logs_short()),
        ]
        try:
            await asyncio.gather(*watching)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def train(self) -> bool:
        """Make the cache that lets Kafka start in a second next time; whether there is a new one. Low priority, 10 s."""
        return await self._kafka.train(self._lock)

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock on the data folder, for the guards of further children."""
        return self._lock

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the two servers, by "kafka" and "postgres"."""
        return {name: child.process.pid for name, child in self._children.items()}

    async def _start(self) -> Servers:
        remembered = _remembered_ports(self._data)
        self._kafka = LocalKafka(self._data / "kafka", self._port("kafka", remembered), self._cache)
        self._postgres = LocalPostgres(self._data / "postgres", self._port("postgres", remembered))
        results = await asyncio.gather(
            self._started("kafka", self._kafka.start),
            self._started("postgres", self._postgres.start),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, OSError):
                raise CannotStart(f"{result.filename or self._data}: {result.strerror or result}.") from result
            if isinstance(result, BaseException):
                raise result
        servers = Servers(self._kafka.address, self._postgres.url)
        _remember(self._data, servers)
        return servers

    async def _stop(self) -> None:
        try:
            for name in ("kafka", "postgres"):
                if child := self._children.pop(name, None):
                    await child.stop()
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # not only by closing: a guard may need an instant more to go
            os.close(self._lock)

    async def _started(self, name: str, start: Callable[[int], Awaitable[Child]]) -> Child:
        child = await start(self._lock)
        self._children[name] = child
        return child

    def _port(self, name: str, remembered: dict[str, int]) -> int:
        if wanted := self._wanted[name]:
            if not is_free(wanted):
                raise CannotStart(f"Port {wanted}, wanted for {name}, is in use: end what uses it, or name another.")
            return wanted
        port = remembered.get(name)
        return port if port and is_free(port) else free_port()

    async def _keep(self, name: str, start: Callable[[int], Awaitable[Child]]) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            await self._children[name].ended()
            if time.monotonic() - began > HEALTHY_SECONDS:
                failures = 0
            while True:
                failures += 1
                await asyncio.sleep(min(0.1 * 2**failures, 3.0))
                try:
                    await self._started(name, start)
                except CannotStart:
                    if failures >= _RESTARTS:
                        raise
                else:
                    break
            if failures >= _RESTARTS:
                raise CannotStart(f"{name} ended {failures} times in a row; {self._children[name].log} may say why.")

    async def _keep_logs_short(self) -> None:
        while True:
            for child in self._children.values():
                await asyncio.to_thread(trim, child.log)
            await asyncio.sleep(10)


async def _nothing_more() -> None:
    pass


def running(data: Path) -> Servers | None:
    """The servers of a running `up` on this folder, or None when there is none.

    `servers.json` alone proves nothing, it outlives its writer; the lock is asked.
    """
    try:
        with (data / "up.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            told = json.loads((data / "servers.json").read_text())
            if told["pid"] == _owner(data / "up.lock"):
                return Servers(told["kafka"], told["database_url"])
    return None


def _make_folders(data: Path, cache: Path) -> None:
    for folder in (data, cache):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CannotStart(f"The folder {folder} cannot be made: {error.strerror}.") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CannotStart(f"The folder {folder} cannot be written: give it to this user, or name another.")
        free = shutil.disk_usage(folder).free
        if free < _LEAST_FREE_BYTES:
            raise CannotStart(
                f"The disk of {folder} has {free // 2**20} MB left and {_LEAST_FREE_BYTES // 2**20} are needed: make room."
            )


async def _locked(path: Path) -> int:
    """A descriptor that holds the lock on the data folder, with our process id in the file.

    When its owner is dead, its servers are just being ended by their guards: that is waited for. Raises CannotStart
    when the owner is alive.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _GUARDS_SECONDS
    patience = time.monotonic() + 0.5  # `running` holds the lock for an instant, too
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = _owner(path)
            now = time.monotonic()
            if now > deadline or (now > patience and owner is not None and _is_alive(owner)):
                os.close(lock)
                raise CannotStart(
                    f"Another process ({owner}) already runs on {path.parent}: end it, or name another data folder."
                ) from None
            await asyncio.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _owner(lock: Path) -> int | None:
    told = lock.read_text().strip()
    return int(told) if told.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remembered_ports(data: Path) -> dict[str, int]:
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        told = json.loads((data / "servers.json").read_text())
        kafka, postgres = urlsplit(f"//{told['kafka']}").port, urlsplit(told["database_url"]).port
        return {"kafka": kafka or 0, "postgres": postgres or 0}
    return {}


def _remember(data: Path, servers: Servers) -> None:
    write_private(data / "servers.json", json.dumps(asdict(servers) | {"pid": os.getpid()}) + "\n")
