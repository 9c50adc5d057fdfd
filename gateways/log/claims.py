"""Asking the decider of sends, and acting on its answer: what an effect may do is what is on record."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from gateways.log.command_log import CommandLog
from gateways.log.tail import Tail
from schemas import commands, events, topics
from schemas.ids import new_id

#: Seconds until a decision counts as one that will not come: the log or its decider is away.
DECIDE_SECONDS: Final = 10.0


class Claims:
    """Questions of workers to the decider of sends."""

    def __init__(self, log: CommandLog, tail: Tail) -> None:
        self._log = log
        self._tail = tail

    async def ask(self, command: Any, trace: Mapping[str, str], *, until: float | None = None) -> Any:
        """The first event that follows from the command, once it is in the log.

        Raises TimeoutError where none comes in time, which ends at `until` by the loop's clock, and what keeps the log from
        taking the command.
        """
        command_id = new_id("cmd")
        decided = self._tail.decision_on(command_id)
        try:
            await self._log.command(
                topics.SEND_COMMANDS.name,
                command.user,
                command,
                vocabulary=commands.SEND,
                subject=command.send,
                command_id=command_id,
                trace=trace,
            )
            ends_at = asyncio.get_running_loop().time() + DECIDE_SECONDS if until is None else until
            async with asyncio.timeout_at(ends_at):
                record = await decided
        finally:
            self._tail.forget(command_id)
        return events.SEND.decode(record.header("ce_type"), record.value)
