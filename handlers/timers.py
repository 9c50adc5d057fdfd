"""Turns what is due into commands (DESIGN 4, rule 8).

Any number of processes may do it: a due row is claimed for a while by one of them. A command's id derives from its timer and
time, and its decider compares times itself, so one that comes twice or too early changes nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from domain.mailbox_commands import ExpireMailbox, PurgeMailbox
from handlers.command_log import AppendsCommands
from schemas import commands, topics

log = logging.getLogger(__name__)

#: Timers claimed at once.
CLAIMS: Final = 200
#: Seconds to the next look where nothing is due.
LOOK_SECONDS: Final = 0.5
#: Seconds until what was destroyed is looked for again, after the first look at the start: a restored database learns from
#: the log what was purged since its backup only when it has caught up.
AGAIN_SECONDS: Final = 600.0


class Timer(Protocol):
    @property
    def timer(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def due(self) -> datetime: ...
    @property
    def subject(self) -> str: ...
    @property
    def key(self) -> str: ...


class ClaimsTimers(Protocol):
    async def claim(self, limit: int) -> Sequence[Timer]:
        """Due timers that nobody has claimed, claimed for us."""
        ...


class Destroys(Protocol):
    """Makes a mailbox's content unreadable for good: its data key and its blobs."""

    async def destroy(self, mailbox: str) -> None: ...

    async def again(self) -> None:
        """Does so again with what purged mailboxes had, where a restored backup brought it back."""
        ...


class Timers:
    """The one handler of due timers."""

    def __init__(self, claims: ClaimsTimers, log: AppendsCommands, destroys: Destroys) -> None:
        self._claims = claims
        self._log = log
        self._destroys = destroys

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres or log is waited for."""
        loop, again_at = asyncio.get_running_loop(), 0.0
        while True:
            try:
                if loop.time() >= again_at:
                    await self._destroys.again()
                    again_at = loop.time() + AGAIN_SECONDS
                due = await self._claims.claim(CLAIMS)
                await asyncio.gather(*[self._fire(timer) for timer in due])
            except Exception:
                log.exception("timers wait")
                due = ()
                await asyncio.sleep(1)
            if len(due) < CLAIMS:
                await asyncio.sleep(LOOK_SECONDS)

    async def _fire(self, timer: Timer) -> None:
        if timer.kind == "purge":
            await self._destroys.destroy(timer.subject)
        command = PurgeMailbox(timer.subject) if timer.kind == "purge" else ExpireMailbox(timer.subject, timer.due)
        await self._log.command(
            topics.MAILBOX_COMMANDS.name,
            timer.key,
            command,
            vocabulary=commands.MAILBOX,
            subject=timer.subject,
            command_id=f"{timer.timer}@{timer.due.timestamp():.3f}",
        )
