"""Parsing mails in child processes, bounded in time and memory, without the loop ever waiting for one.

Two lanes. Quick mails are pipelined to the quick children with 250 ms each; a mail that takes longer comes back as
``parsing``, for the caller to read later in full. Full mails go one at a time to a child of their own, started on
demand and ended after idling, with seconds of CPU; what it cannot read is ``unparsed``, its cause from a closed list.

A child that dies takes with it only the mail it was reading; what it had not begun goes to its successor, in order.
A child that cannot be started is no mail's fault: that is `ParserUnavailableError`, and the caller backs off.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import orjson

from domain import mail
from gateways.parser import frames
from gateways.parser.process import Job, Limits, ParserProcess, ParserUnavailableError, Reply

__all__ = ["Parsed", "ParserPool", "ParserUnavailableError"]

WINDOW_MAILS = 64
WINDOW_BYTES = 256 * 1024
IDLE_SECONDS = 30.0

State = Literal["whole", "parsing", "unparsed"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one mail.

    *summary* is {from_address, from_name, subject, has_attachments}; *content* the UTF-8 JSON of everything the API
    shows, made in the child and not decoded here. Both are None unless the state is ``whole``. *cause* is set where it
    is ``unparsed``: one of `gateways.parser.frames.CAUSES`.
    """

    state: State
    summary: dict[str, Any] | None
    content: bytes | None
    message_id: str | None
    cause: str | None


class ParserPool:
    """Children that read mails; an async context manager, whose end is the children's end."""

    def __init__(
        self,
        workers: int = 1,
        quick_seconds: float = 0.25,
        full_cpu_seconds: float = 5,
        memory_mb: int = 512,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        limits = Limits(quick_seconds, full_cpu_seconds, memory_mb)
        self._quick = _Lane(limits, workers, WINDOW_MAILS, 2 * quick_seconds + 0.5, None)
        self._full = _Lane(limits, 1, 1, 6 * full_cpu_seconds, idle_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(self._quick.close(), self._full.close())

    async def parse(self, raw: bytes, *, full: bool = False) -> Parsed:
        """Read one mail. Raises `ParserUnavailableError` when no child can be had; nothing else, whatever the mail."""
        reply = await (self._full if full else self._quick).read(raw, full=full)
        if reply.outcome == frames.WHOLE:
            head = orjson.loads(reply.head)
            return Parsed("whole", head["summary"], reply.content, head["message_id"], None)
        cause = frames.cause_of(reply.outcome)
        # Time and memory may suffice, and a death may not happen again, when the mail has a child to itself.
        state: State = "parsing" if not full and cause in {"time", "memory", "crashed"} else "unparsed"
        return Parsed(state, None, None, mail.message_id(raw), cause if state == "unparsed" else None)


class _Lane:
    """Mails waiting for one kind of child, and those children: as many as *size*, started when there is work."""

    def __init__(
        self, limits: Limits, size: int, window: int, patience_seconds: float, idle_seconds: float | None
    ) -> None:
        self._limits, self._size, self._window = limits, size, window
        self._patience_seconds, self._idle_seconds = patience_seconds, idle_seconds
        self._waiting: deque[Job] = deque()
        self._children: list[ParserProcess] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    async def read(self, raw: bytes, *, full: bool) -> Reply:
        """The answer of a child."""
        if self._closed:
            raise ParserUnavailableError("the parser pool is closed")
        job = Job(raw, full, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._hand_out()
        return await job.answer

    async def close(self) -> None:
        """End the children and wait until they are gone; whoever still waits hears `ParserUnavailableError`."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        self._give_up(ParserUnavailableError("the parser pool is closed"))
        for child in self._children:
            child.kill()
        await asyncio.gather(*self._tasks)

    def _hand_out(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        while self._waiting:
            child = min(filter(self._has_room, self._children), key=lambda child: child.held_bytes, default=None)
            if child is None:
                break
            job = self._waiting.popleft()
            if not job.answer.done():
                child.send(job)
        wanted = min(self._size, len(self._children) + (len(self._waiting) + self._window - 1) // self._window)
        while len(self._children) + self._starting < wanted and not self._closed:
            self._starting += 1
            task = asyncio.get_running_loop().create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._idle_seconds is not None and self._children and not any(child.held for child in self._children):
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire_all)

    def _has_room(self, child: ParserProcess) -> bool:
        if child.ended or child.retiring:
            return False
        return not child.held or (len(child.held) < self._window and child.held_bytes < WINDOW_BYTES)

    async def _run(self) -> None:
        """One child's life, from its start until it is reaped."""
        child = ParserProcess(self._patience_seconds, self._hand_out, self._bury)
        try:
            try:
                await child.start(self._limits)
            finally:
                self._starting -= 1
            if not child.ended:
                self._children.append(child)
            if self._closed:
                child.kill()
            self._hand_out()
        except ParserUnavailableError as error:
            self._give_up(error)
        finally:
            await child.gone()

    def _bury(self, child: ParserProcess) -> None:
        if child in self._children:
            self._children.remove(child)
        if child.held and not child.retiring:
            cause = "time" if child.overdue else "crashed"
            child.held.popleft().settle(Reply(frames.outcome_of(cause), b"", b""))
        self._waiting.extendleft(reversed(child.held))
        child.held.clear()
        if not self._closed:
            self._hand_out()

    def _give_up(self, error: ParserUnavailableError) -> None:
        held = [job for child in self._children for job in child.held]
        for job in (*held, *self._waiting):
            if not job.answer.done():
                job.answer.set_exception(error)
        self._waiting.clear()

    def _retire_all(self) -> None:
        for child in self._children:
            child.retire()
