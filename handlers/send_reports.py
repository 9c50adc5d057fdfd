"""How effects tell the decider of sends what came of what they did, for as long as it takes until it is in the log."""

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from handlers.command_log import AppendsCommands
from schemas import commands, topics

log = logging.getLogger(__name__)


class SendReports:
    """Commands to the context of sends."""

    def __init__(self, log: AppendsCommands) -> None:
        self._log = log

    async def tell(self, command: Any, trace: Mapping[str, str], *, command_id: str | None = None) -> None:
        """Raises where the log can't be reached."""
        await self._log.command(
            topics.SEND_COMMANDS.name,
            command.user,
            command,
            vocabulary=commands.SEND,
            subject=command.send,
            command_id=command_id,
            trace=trace,
        )

    async def tell_surely(self, command: Any, trace: Mapping[str, str]) -> None:
        """Again and again until it is acknowledged: nobody else knows what it says. Heard twice, it changes nothing."""
        pause = 0.1
        while True:
            try:
                return await self.tell(command, trace)
            except Exception:
                log.exception("an outcome waits for the log", extra={"send": command.send})
                await asyncio.sleep(random.uniform(pause, pause * 2))  # noqa: S311 - spreads tries, hides nothing
                pause = min(pause * 2, 5)
