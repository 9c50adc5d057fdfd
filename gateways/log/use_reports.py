"""Who used a connection's token, for what call and when, without a round trip for any of them.

Calls are noted in memory and reported each second, a hundred of one connection in one command. While the log does not answer
they wait; what waits is bounded, and each call that finds no room is counted; it is said once when that begins, and how many
there were once the log answers again. After an outcome that is not known the same calls are reported once more: an auditor
would rather read a call twice than never.
"""

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from domain.connection_commands import ReportUse
from domain.connection_events import Call
from gateways.log.command_log import CommandLog, NotPromised, OutcomeUnknown, TooLarge
from schemas import commands, topics

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
#: Calls in one command.
BATCH: Final = 100
#: Calls that wait, of all connections.
MOST_WAITING: Final = 20_000
CLOSE_SECONDS: Final = 5.0
#: Commands on their way at once.
AT_ONCE: Final = 16


@dataclass(slots=True)
class _Waiting:
    """Calls of one connection that are not in the log yet."""

    user: str
    calls: deque[Call] = field(default_factory=deque)
    #: Asked for already; a second report would put later calls before earlier ones.
    under_way: bool = False


class UseReports:
    """The calls of this process with tokens of connections; `start` and `close` it."""

    def __init__(self, command_log: CommandLog, registry: CollectorRegistry | None = None) -> None:
        self._log = command_log
        self._waiting: dict[str, _Waiting] = {}
        self._count = 0
        self._dropped = 0
        self._untold = 0
        self._full = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._task: asyncio.Task[None] | None = None
        self._lost = Counter(
            "postledger_token_uses_dropped_total",
            "Calls with a connection's token that no event tells of, since the log did not answer",
            registry=registry,
        )

    @property
    def waiting(self) -> int:
        """Calls that are not in the log yet."""
        return self._count

    @property
    def dropped(self) -> int:
        """Calls for which there was no room, since the process began."""
        return self._dropped

    def start(self) -> None:
        """Reports from now on, each second."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def note(self, connection: str, user: str, call: Call) -> None:
        """One call that was made; returns at once."""
        if self._count >= MOST_WAITING:
            self._drop(1)
            return
        of = self._waiting.setdefault(connection, _Waiting(user))
        of.calls.append(call)
        self._count += 1
        if len(of.calls) >= BATCH:
            self._full.set()

    async def flush(self) -> None:
        """Reports all that waits. What the log does not take now goes on waiting."""
        await asyncio.gather(*(self._report(connection) for connection in list(self._waiting)))

    async def close(self) -> None:
        """Reports what is left, as far as the log takes it within a few seconds; the rest is counted as dropped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.flush()
        if self._count:
            self._drop(self._count)
            self._waiting.clear()
            self._count = 0

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._full.wait()
            self._full.clear()
            await self.flush()
            if self._full.is_set():
                # The log refuses and a batch is full again already: asking on at once would help nobody.
                await asyncio.sleep(FLUSH_SECONDS)

    async def _report(self, connection: str) -> None:
        of = self._waiting.get(connection)
        if of is None or of.under_way:
            return
        of.under_way = True
        try:
            while of.calls and await self._sent(connection, of):
                pass
        finally:
            of.under_way = False
        if not of.calls:
            self._waiting.pop(connection, None)

    async def _sent(self, connection: str, of: _Waiting) -> bool:
        """Whether the oldest calls of a connection are in the log now, and others may follow."""
        calls = [of.calls[number] for number in range(min(BATCH, len(of.calls)))]
        try:
            async with self._at_once:
                await self._log.command(
                    topics.CONNECTION_COMMANDS.name,
                    of.user,
                    ReportUse(connection, of.user, calls),
                    vocabulary=commands.CONNECTION,
                    subject=connection,
                )
        except TooLarge:
            self._drop(len(calls))
        except (NotPromised, OutcomeUnknown):
            return False
        except Exception:
            # Whatever it is, the calls of other connections go on being reported.
            log.exception("calls with tokens could not be reported", extra={"connection": connection})
            return False
        else:
            self._tell_dropped()
        for _ in calls:
            of.calls.popleft()
        self._count -= len(calls)
        return True

    def _drop(self, calls: int) -> None:
        if not self._untold:
            log.error("calls with tokens can't be reported and are dropped")
        self._untold += calls
        self._dropped += calls
        self._lost.inc(calls)

    def _tell_dropped(self) -> None:
        """The log answers: how many calls are in it nowhere."""
        if self._untold:
            log.warning("calls with tokens were dropped and are not in the log", extra={"calls": self._untold})
            self._untold = 0
