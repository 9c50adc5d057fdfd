"""`up`: the two servers and all roles as children of one small process, restarted when they end.

Two role processes: the workers (deciding and folding), and the doors (HTTP and SMTP, which share one tail of the log). More
of a role is what a larger installation starts by itself.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from gateways.local_children import CannotStart, Child, trim
from gateways.local_servers import LocalServers, Servers

#: What runs together in one process.
PROCESSES: Final[dict[str, tuple[str, ...]]] = {"workers": ("work", "project"), "doors": ("http", "smtp")}
READY_SECONDS: Final = 30.0
#: Ends of one process in a row, without half a minute of health between, after which `up` gives up.
RESTARTS: Final = 8
HEALTHY_SECONDS: Final = 30.0


class Supervisor:
    """Runs everything on one machine until it is told to end, or can't go on."""

    def __init__(self, data: Path, *, program: Path, servers: Servers | None) -> None:
        self._data = data.absolute()
        self._program = program
        self._given = servers
        self._children: dict[str, Child] = {}
        self._lock = -1

    async def run(self, prepare: Callable[[Servers], Awaitable[None]], ready: Callable[[float], None]) -> None:
        """Starts all, says so, and keeps it running. Raises CannotStart with one sentence where that is no use."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            local = LocalServers(self._data)
            if self._given is None:
                servers = await stack.enter_async_context(local)
                self._lock = local.lock
            else:
                servers, self._lock = self._given, os.open(os.devnull, os.O_RDWR)
            os.environ["POSTLEDGER_KAFKA"] = servers.kafka
            os.environ["POSTLEDGER_DATABASE_URL"] = servers.database_url
            await prepare(servers)
            stack.push_async_callback(self._stop)
            await asyncio.gather(*[self._start(name) for name in PROCESSES])
            ready(time.monotonic() - began)
            await self._until_told(local if self._given is None else None)

    async def _until_told(self, local: LocalServers | None) -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, told.set)
        watching = [asyncio.create_task(self._keep(name)) for name in PROCESSES]
        if local is not None:
            watching += [asyncio.create_task(local.watch()), asyncio.create_task(_train(local))]
        ending = asyncio.create_task(told.wait())
        try:
            await _first_failure_or(ending, watching)
        finally:
            for task in [*watching, ending]:
                task.cancel()
            await asyncio.gather(*watching, ending, return_exceptions=True)

    async def _start(self, name: str) -> None:
        log = self._data / "log" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        trim(log)
        ready_file = self._data / "log" / f"{name}.ready"
        ready_file.unlink(missing_ok=True)
        command: list[str | Path] = [sys.executable, self._program, "roles", *PROCESSES[name], "--ready-file", ready_file]
        child = await Child.spawn(
            name, command, log=log, stop_signal=signal.SIGTERM, guard_signal="TERM", lock=self._lock
        )
        self._children[name] = child
        await child.until(ready_file.exists, seconds=READY_SECONDS)

    async def _keep(self, name: str) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            await self._children[name].ended()
            failures = 0 if time.monotonic() - began > HEALTHY_SECONDS else failures
            while True:
                failures += 1
                if failures > RESTARTS:
                    raise CannotStart(
                        f"The {name} ended {failures} times in a row: {self._children[name].last_words()} "
                        f"(more in {self._children[name].log})."
                    )
                await asyncio.sleep(min(0.1 * 2**failures, 5.0))
                try:
                    await self._start(name)
                    break
                except CannotStart:
                    await self._children[name].stop(seconds=1)

    async def _stop(self) -> None:
        """The doors first, so that nothing comes in that nobody decides."""
        for name in reversed(PROCESSES):
            if child := self._children.get(name):
                await child.stop(seconds=20)


async def _train(local: LocalServers) -> None:
    await asyncio.sleep(20)  # what runs now is used now: the cache for the next start can wait until it is quiet
    await local.train()


async def _first_failure_or(ending: asyncio.Task[bool], watching: list[asyncio.Task[None]]) -> None:
    pending: set[asyncio.Task[bool] | asyncio.Task[None]] = {ending, *watching}
    while not ending.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
