"""Turns sends that are due into commands: those whose time has come, whose attempt has had its time, or of which nothing was
heard for too long (DESIGN 4, rules 5 and 8).

Any number of processes may do it. A command's id derives from the send and the time, and the decider compares times itself,
so one that comes twice or too early changes nothing.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from domain.send_commands import DoubtAttempt, KnownConnection, StartSend
from handlers.command_log import AppendsCommands
from schemas import commands, topics

log = logging.getLogger(__name__)

#: Sends claimed at once.
CLAIMS: Final = 200
#: Seconds to the next look where nothing is due.
LOOK_SECONDS: Final = 0.5
#: Until a user without any connection is believed to have none: whose connections end has no sends any more, so that is
#: rather a table that is behind.
DOUBTED: Final = timedelta(hours=1)


class DueSend(Protocol):
    @property
    def send(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def due(self) -> datetime: ...
    @property
    def kind(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def traceparent(self) -> str | None: ...


class ClaimsSends(Protocol):
    async def claim(self, limit: int) -> Sequence[Any]:
        """Due sends that nobody has claimed, claimed for us."""
        ...

    async def connections(self, users: Sequence[str]) -> Mapping[str, list[KnownConnection]]: ...


class SendTimers:
    """The handler of sends that are due."""

    def __init__(self, claims: ClaimsSends, log: AppendsCommands, *, scale: float = 1.0) -> None:
        self._claims = claims
        self._log = log
        self._scale = scale

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres or log is waited for."""
        while True:
            due: Sequence[DueSend] = ()
            try:
                due = await self._claims.claim(CLAIMS)
                starting = sorted({send.user for send in due if send.kind == "start"})
                known = await self._claims.connections(starting) if starting else {}
                ready = [send for send in due if not _is_doubtful(send, known.get(send.user, []))]
                await asyncio.gather(*[self._fire(send, known.get(send.user, [])) for send in ready])
            except Exception:
                log.exception("timers of sends wait")
                await asyncio.sleep(1)
            if len(due) < CLAIMS:
                await asyncio.sleep(LOOK_SECONDS)

    async def _fire(self, due: DueSend, connections: list[KnownConnection]) -> None:
        command: Any = (
            DoubtAttempt(due.send, due.user, due.attempt, scale=self._scale)
            if due.kind == "doubt"
            else StartSend(due.send, due.user, due.due, connections, scale=self._scale)
        )
        await self._log.command(
            topics.SEND_COMMANDS.name,
            due.user,
            command,
            vocabulary=commands.SEND,
            subject=due.send,
            command_id=f"send/{due.send}/{due.kind}@{due.due.timestamp():.3f}",
            trace={"traceparent": due.traceparent} if due.traceparent else None,
        )


def _is_doubtful(due: DueSend, connections: list[KnownConnection]) -> bool:
    return due.kind == "start" and not connections and datetime.now(UTC) < due.due + DOUBTED
