"""Telling connections' decider that key-encryption keys were rotated, so that an auditor can read it."""

from collections.abc import Awaitable, Callable

from domain.connection import KEYS_KEY
from domain.connection_commands import ReportRotation
from gateways.log.command_log import CommandLog
from gateways.stores.key_rotation import Rotated
from schemas import commands, topics


def rotation_reports(log: CommandLog) -> Callable[[Rotated], Awaitable[None]]:
    """Reports by this log; a rotation that is reported again has the same command's id. Raises what the log raises."""

    async def report(rotated: Rotated) -> None:
        await log.command(
            topics.CONNECTION_COMMANDS.name,
            KEYS_KEY,
            ReportRotation(rotated.key, rotated.rows, rotated.finished_at),
            vocabulary=commands.CONNECTION,
            subject=rotated.key,
            command_id=f"{rotated.key}@{rotated.began_at.timestamp():.3f}",
        )

    return report
