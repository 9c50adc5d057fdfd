"""`up`: the two servers and all roles as children of one small process, restarted when they end.

Two role processes: the workers (deciding and folding), and the doors (HTTP and SMTP, which share one tail of the log). More
of a role is what a larger installation starts by itself.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final

from gateways.local_children import CannotStart, Child, trim
from gateways.local_servers import LocalServers, Servers
from gateways.private_files import write_private
from gateways.supervised import told_to_end

#: What runs together in one process.
PROCESSES: Final[dict[str, tuple[str, ...]]] = {"workers": ("work", "project"), "doors": ("http", "smtp")}
#: More than the half minute for which a log may look short before that is said.
READY_SECONDS: Final = 60.0
#: Ends of one process in a row, without half a minute of health between, after which `up` gives up.
RESTARTS: Final = 8
HEALTHY_SECONDS: Final = 30.0


class Supervisor:
    """Runs everything on one machine until it is told to end, or can't go on."""

    def __init__(self, data: Path, *, program: Path, servers: Servers | None) -> None:
        self._data = data.absolute()
        self._log = self._data / "log"
        self._program = program
        self._given = servers
        self._children: dict[str, Child] = {}
        self._lock = -1

    async def run(self, ready: Callable[[float], None]) -> None:
        """Starts all, says so, and keeps it running until SIGTERM or SIGINT, from the first moment on; a second signal
        ends it at once. Raises CannotStart with one sentence where it is no use to go on."""
        told = told_to_end()
        running, ending = asyncio.create_task(self._run(ready)), asyncio.create_task(told.wait())
        await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if running.done():
            running.result()
        running.cancel()
        # What a start that is broken off says is of no interest any more.
        await asyncio.gather(running, return_exceptions=True)

    async def _run(self, ready: Callable[[float], None]) -> None:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            local: LocalServers | None = None
            if self._given is None:
                local = begun = LocalServers(self._data)
                begun.on_locked = lambda: self._spawn_all(begun.lock)
                try:
                    servers = await stack.enter_async_context(begun)
                except BaseException:
                    await self._stop()
                    raise
                stack.push_async_callback(self._stop)
            else:
                stack.push_async_callback(self._stop)
                await self._spawn_all(os.open(os.devnull, os.O_RDWR))
                servers = self._given
            _tell(self._log / "servers", servers)
            await asyncio.gather(*[self._until_ready(name) for name in PROCESSES])
            ready(time.monotonic() - began)
            await self._keep_all(local)

    async def _spawn_all(self, lock: int) -> None:
        """Beside the servers: most of a role's start is loading itself, and then it waits until it is told to go on."""
        self._lock = lock
        self._log.mkdir(parents=True, exist_ok=True)
        for sign in ("servers", "provisioned"):
            (self._log / sign).unlink(missing_ok=True)
        for name in PROCESSES:
            await self._spawn_role(name)

    async def _spawn_role(self, name: str) -> None:
        """The workers provision first, and say so: the others wait for that."""
        self._ready(name).unlink(missing_ok=True)
        servers, provisioned = self._log / "servers", self._log / "provisioned"
        waits = ("--after", servers, "--provision", provisioned) if name == "workers" else ("--after", provisioned)
        await self._spawn(name, "roles", *PROCESSES[name], *waits, "--ready-file", self._ready(name))

    async def _spawn(self, name: str, *words: str | Path) -> None:
        log = self._log / f"{name}.log"
        if log.exists():
            trim(log)
        command = [sys.executable, self._program, *words]
        self._children[name] = await Child.spawn(
            name, command, log=log, stop_signal=signal.SIGTERM, guard_signal="TERM", lock=self._lock
        )

    async def _until_ready(self, name: str) -> None:
        await self._children[name].until(self._ready(name).exists, seconds=READY_SECONDS)

    def _ready(self, name: str) -> Path:
        return self._log / f"{name}.ready"

    async def _keep_all(self, local: LocalServers | None) -> None:
        """Until cancelled; raises CannotStart where something can't be kept running."""
        watching = [asyncio.create_task(self._keep(name)) for name in PROCESSES]
        if local is not None:
            watching += [asyncio.create_task(local.watch()), asyncio.create_task(_train(local))]
        try:
            await asyncio.gather(*watching)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

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
                    await self._spawn_role(name)
                    await self._until_ready(name)
                    break
                except CannotStart:
                    await self._children[name].stop(seconds=1)

    async def _stop(self) -> None:
        """The doors first, so that nothing comes in that nobody decides."""
        for name in reversed(PROCESSES):
            if child := self._children.pop(name, None):
                await child.stop(seconds=20)
        for sign in ("servers", "provisioned"):
            (self._log / sign).unlink(missing_ok=True)


def _tell(sign: Path, servers: Servers) -> None:
    """Where the servers are, for our children's eyes: the address of Postgres holds its password."""
    write_private(sign, json.dumps(asdict(servers)))


async def _train(local: LocalServers) -> None:
    await asyncio.sleep(20)  # what runs now is used now: the cache for the next start can wait until it is quiet
    await local.train()
