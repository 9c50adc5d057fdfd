"""TCP proxies on the loopback, to cut or freeze connections between programs that know nothing of it.

A *cut* proxy drops every connection and refuses new ones, as a network does that has lost a cable and says so. A *frozen* one
holds what is sent, and passes it on when it is thawed, as a stopped process does.

The proxies have a thread and an event loop of their own: what they carry must not wait for what a test computes.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

Address = tuple[str, int]
Answer = TypeVar("Answer")


class TcpProxy:
    """Passes on what comes to one address to another. Its methods may be called from any thread, and are done on return."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Address) -> None:
        self._loop = loop
        self._target = target
        self._cut = False
        self._transports: set[Any] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._holds: Callable[[bytes], bool] = lambda _: False

    def cut(self) -> None:
        """Drop what is connected and refuse whoever comes."""
        self._do(self._drop)

    def mend(self) -> None:
        """Let connections pass again."""
        self._cut = False

    def freeze(self, holds: Callable[[bytes], bool] = lambda _: True) -> None:
        """Hold both directions of every connection from when its client sends something that `holds` is true of."""
        self._holds = holds
        self._do(self._flows.clear)

    def thaw(self) -> None:
        """Pass on what was held, and hold nothing more."""
        self._holds = lambda _: False
        self._do(self._flows.set)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until either side ends it."""
        ends = [writer.transport]
        try:
            if self._cut:
                return
            onward_reader, onward = await asyncio.open_connection(*self._target)
            ends.append(onward.transport)
            self._transports.update(ends)
            held = asyncio.Event()
            there = asyncio.create_task(self._pass(reader, onward, held, self._holds_of))
            back = asyncio.create_task(self._pass(onward_reader, writer, held, lambda _: False))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in ends:
                self._transports.discard(end)
                end.abort()

    def _holds_of(self, sent: bytes) -> bool:
        return self._holds(sent)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        held: asyncio.Event,
        holds: Callable[[bytes], bool],
    ) -> None:
        while sent := await reader.read(262_144):
            if holds(sent):
                held.set()
            if held.is_set():
                await self._flows.wait()
            writer.write(sent)
            await writer.drain()

    def _drop(self) -> None:
        self._cut = True
        for transport in list(self._transports):
            transport.abort()

    def _do(self, act: Callable[[], None]) -> None:
        async def doing() -> None:
            act()

        asyncio.run_coroutine_threadsafe(doing(), self._loop).result(10)


class TcpProxies:
    """The thread that carries, for as long as the block lasts."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="TCP proxies", daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, listening: Address, target: Address) -> TcpProxy:
        """Begin to pass on what comes to `listening`; raises OSError where nobody can listen there."""
        proxy = TcpProxy(self._loop, target)
        self._servers.append(self._run(asyncio.start_server(proxy.carry, *listening)))
        return proxy

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 5)

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
