"""How effects tell connections' decider what came of what they did."""

from domain.connection_commands import ReportRefresh, ReportRevocation, ReportUse
from handlers.command_log import AppendsCommands
from schemas import commands, topics


class Reports:
    """Commands to the connection context; each raises where the log can't be reached."""

    def __init__(self, log: AppendsCommands) -> None:
        self._log = log

    async def refresh(self, report: ReportRefresh) -> None:
        await self._append(report)

    async def revocation(self, report: ReportRevocation) -> None:
        await self._append(report)

    async def use(self, report: ReportUse) -> None:
        await self._append(report)

    async def _append(self, report: ReportRefresh | ReportRevocation | ReportUse) -> None:
        await self._log.command(
            topics.CONNECTION_COMMANDS.name,
            report.user,
            report,
            vocabulary=commands.CONNECTION,
            subject=report.connection,
        )
