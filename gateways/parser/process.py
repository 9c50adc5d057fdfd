"""One child of the parser pool as its parent sees it: a process, a socket, and the mails it holds in order.

Frames are written together at the end of a turn of the loop and answered together, so a small mail costs the parent a
few microseconds of system calls. The child keeps its own time; the watch here is for a child that cannot (stopped, or
deep in one call of C): it is killed, and the mail it held counts as out of time.
"""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson

from gateways.parser import child, frames

START_SECONDS = 30.0
#: After a large mail glibc would keep its memory for the next one (mallopt(3)); with fixed thresholds it is given back. What
#: a mail of a mebibyte needs is kept: asking the kernel for it again costs as much as reading such a mail.
_GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "8388608"}
_ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = Path(orjson.__file__).resolve().parent.parent


class ParserUnavailableError(Exception):
    """No child can be started, or the pool is closed: nothing is known of the mail; the caller tries again later."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use: seconds of wall clock or CPU for one mail, megabytes of address space in all."""

    quick_seconds: float
    full_cpu_seconds: float
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a child said of one mail: *outcome* as in `gateways.parser.frames`."""

    outcome: int
    head: bytes
    content: bytes


@dataclass(slots=True, eq=False)
class Job:
    """One mail on its way through a child."""

    raw: bytes
    full: bool
    answer: asyncio.Future[Reply]

    def settle(self, reply: Reply) -> None:
        """Hand the answer to whoever still waits for it."""
        if not self.answer.done():
            self.answer.set_result(reply)


class ParserProcess(asyncio.Protocol):
    """A running child. *on_answers* is called after answers came, *on_end* once, when the child is gone."""

    def __init__(
        self, patience_seconds: float, on_answers: Callable[[], None], on_end: Callable[["ParserProcess"], None]
    ) -> None:
        self._patience_seconds, self._on_answers, self._on_end = patience_seconds, on_answers, on_end
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._process: Process | None = None
        self._received = bytearray()
        self._unsent: list[bytes] = []
        self._last_sign_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self.held: deque[Job] = deque()
        self.held_bytes = 0
        self.ended = False
        self.retiring = False
        self.overdue = False

    async def start(self, limits: Limits) -> None:
        """Start the child and wait for its first word. Raises `ParserUnavailableError`."""
        ours, theirs = socket.socketpair()
        arguments = (
            str(_ROOT),
            str(_LIBRARIES),
            "0",
            *map(str, (limits.quick_seconds, limits.full_cpu_seconds, limits.memory_mb)),
        )
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", child.__file__, *arguments,
                    stdin=theirs.fileno(), stdout=DEVNULL, stderr=DEVNULL, env={**os.environ, **_GIVES_BACK},
                )  # fmt: skip
            await self._loop.create_unix_connection(lambda: self, sock=ours)
            async with asyncio.timeout(START_SECONDS):
                await self._ready
        except (OSError, TimeoutError) as error:
            self.kill()
            self.retire()
            ours.close()
            raise ParserUnavailableError(f"a parser's child could not be started: {type(error).__name__}") from error

    def send(self, job: Job) -> None:
        """Give the child one more mail; it is written with all others of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent += (frames.REQUEST.pack(len(job.raw), job.full), job.raw)
        if not self.held:
            self._last_sign_at = self._loop.time()
        self.held.append(job)
        self.held_bytes += len(job.raw)
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience_seconds, self._look)

    def retire(self) -> None:
        """Close the socket: the child ends when it has noticed. What it is given in between goes to its successor."""
        self.retiring = True
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End the child now."""
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                return

    async def gone(self) -> None:
        """Wait until the child has ended and is reaped."""
        if self._process is not None:
            await self._process.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its ancestors

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with whatever came: settle the mails whose answers are complete."""
        self._last_sign_at = self._loop.time()
        self._received += data
        header, at = frames.REPLY, 0
        while len(self._received) - at >= header.size:
            outcome, head_length, content_length = header.unpack_from(self._received, at)
            head_end = at + header.size + head_length
            if len(self._received) < head_end + content_length:
                break
            head = bytes(self._received[at + header.size : head_end])
            content = bytes(memoryview(self._received)[head_end : head_end + content_length])
            self._take(Reply(outcome, head, content))
            at = head_end + content_length
        if at:
            del self._received[:at]
            self._on_answers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the child has closed its end, by itself or by dying."""
        self.ended = True
        self._received.clear()
        if self._watch is not None:
            self._watch.cancel()
        self.kill()
        if not self._ready.done():
            self._ready.set_exception(exc or ConnectionResetError("it ended before it was ready"))
        self._on_end(self)

    def _take(self, reply: Reply) -> None:
        if reply.outcome == frames.READY:
            self._ready.set_result(None)
            return
        job = self.held.popleft()
        self.held_bytes -= len(job.raw)
        # A child that ran out of memory ends after saying so: what else it holds was never begun.
        self.retiring = self.retiring or reply.outcome == frames.outcome_of("memory")
        job.settle(reply)

    def _write(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self.ended:
            self._transport.writelines(unsent)

    def _look(self) -> None:
        self._watch = None
        if not self.held:
            return
        left = self._last_sign_at + self._patience_seconds - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
            return
        self.overdue = True
        self.kill()
