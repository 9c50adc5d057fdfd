"""`main.py redrive`: sends that ended without having gone out for sure, tried again because an operator says so.

Each is asked for once, by a command like everybody's, and the decision is told: what was sent in the meantime is refused, not
sent again. What is `uncertain` may have gone out already, so nothing takes it along that doesn't say so.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer

from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from domain.send_commands import KnownConnection, RedriveSend
from domain.send_events import SendCommandRefused
from gateways.command_line.failures import FAILED, NOT_FOUND, TIMED_OUT, USAGE, Failed
from gateways.command_line.installation import DECIDED_SECONDS, Installation, log_of, tables_of
from gateways.command_line.output import Form, advise, show_rows
from gateways.command_line.progress import Bar
from gateways.log.command_log import CommandLog, NotPromised, OutcomeUnknown
from gateways.log.decisions import Asked, Decisions, Unsettled
from gateways.log.tail import Tail
from gateways.stores.due_sends import DueSends
from gateways.stores.ended_sends import EndedSend, EndedSends
from gateways.stores.folded import FoldedPositions
from gateways.stores.postgres import Pool
from schemas import commands, events
from schemas.envelope import Record, stamp
from schemas.topics import SEND_COMMANDS, SEND_EVENTS

BY: Final = "operator"
#: Sends that are asked for before the decisions on them are awaited.
AT_ONCE: Final = 50
SPAN: Final = re.compile(r"(\d{1,5})([mhd])")
UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
MAY_BE_THERE: Final = "may have gone out already, and would then arrive twice"
REFUSED: Final = {
    "unknown": "There is no such send.",
    "sent": "It went out.",
    "not_ended": "It is on its way, was cancelled, or was tried again in the meantime.",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which sends: those that are named, or all of a status, narrowed."""

    names: tuple[str, ...] = ()
    status: str = "dead_lettered"
    code: str | None = None
    provider: str | None = None
    since: datetime | None = None


def moment_of(text: str, now: datetime) -> datetime:
    """`2h` or `3d` before now, or a time as RFC 3339 writes it, with an offset. Raises Failed (2)."""
    if span := SPAN.fullmatch(text):
        return now - timedelta(**{UNITS[span[2]]: int(span[1])})
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    raise Failed("--since is a span such as 90m, 2h or 3d, or a time such as 2026-03-13T15:30:00Z.", code=USAGE)


async def redrive(
    installation: Installation, chosen: Chosen, *, dry_run: bool, yes: bool, output: Form | None = None
) -> int:
    """Prints what came of each; the exit status. Raises Failed, and what the servers raise."""
    async with tables_of(installation) as pool:
        found = await _found(EndedSends(pool), chosen)
        if dry_run or not found:
            show_rows([_row(one) for one in found], output)
            if found:
                advise(f"{_counted(found)} would be tried again.{_warning(found)}")
            return 0
        if not _confirmed(found, yes=yes):
            raise Failed("Nothing was changed.")
        async with log_of(installation, pool, SEND_EVENTS.name) as (log, tail, folded):
            redriving = Redriving(pool, log, tail, folded, scale=installation.retry_scale)
            return await _tell(redriving, found, output)


async def _found(ended: EndedSends, chosen: Chosen) -> list[EndedSend]:
    """Raises Failed (3) where one that is named is not there; then nothing was changed."""
    if not chosen.names:
        return list(
            await ended.of_status(chosen.status, code=chosen.code, provider=chosen.provider, since=chosen.since)
        )
    known = await ended.named(chosen.names)
    if missing := [name for name in chosen.names if name not in known]:
        raise Failed(f"There is no send {', '.join(missing)}; nothing was changed.", code=NOT_FOUND)
    return [known[name] for name in chosen.names]


def _confirmed(found: Sequence[EndedSend], *, yes: bool) -> bool:
    """Asks on a terminal, unless told already. Raises Failed where nobody is there."""
    if warning := _warning(found):
        advise(warning.strip())
    if not yes and not sys.stdin.isatty():
        raise Failed(f"This sends {_counted(found)}: say --yes, or --dry-run to look only.", code=USAGE)
    return yes or typer.confirm(f"Try {_counted(found)} again?", err=True)


def _warning(found: Sequence[EndedSend]) -> str:
    uncertain = sum(one.status == "uncertain" for one in found)
    return f" {uncertain} of them {MAY_BE_THERE}." if uncertain else ""


def _counted(found: Sequence[EndedSend]) -> str:
    return f"{len(found)} mail{'' if len(found) == 1 else 's'}"


def _row(one: EndedSend) -> dict[str, Any]:
    ended_at = stamp(one.ended_at) if one.ended_at else None
    return {
        "send": one.send,
        "user": one.user,
        "status": one.status,
        "code": one.code,
        "provider": one.provider,
        "ended_at": ended_at,
    }


@dataclass(frozen=True, slots=True)
class CameOf:
    """What was decided on one send; `why` where it was not put back."""

    send: str
    outcome: str
    why: str | None = None

    @property
    def ends_it(self) -> bool:
        """Whether more would fare no better: nobody decides, or the log takes nothing."""
        return self.outcome in ("undecided", "not_taken")

    @property
    def row(self) -> dict[str, Any]:
        return {"send": self.send, "outcome": self.outcome, "why": self.why}


async def _tell(redriving: "Redriving", found: Sequence[EndedSend], output: Form | None) -> int:
    """Prints each decision when it is there; what nobody decides ends it, before more is asked for."""
    told: list[CameOf] = []
    try:
        with Bar("redrive") as bar:
            while len(told) < len(found) and not any(one.ends_it for one in told):
                told += await redriving.all_of(found[len(told) : len(told) + AT_ONCE])
                bar.at(len(told), len(found))
    finally:
        show_rows([one.row for one in told], output)
        redriven = sum(one.outcome == "redriven" for one in told)
        advise(f"{redriven} of {len(found)} are tried again.")
        if len(told) < len(found):
            advise(f"{len(found) - len(told)} were not asked for.")
    if any(one.outcome == "undecided" for one in told):
        advise(
            "What is undecided is in the log, or on its way there, and is decided once the role `work` runs: look before you "
            "try again."
        )
        return TIMED_OUT
    return 0 if redriven == len(found) else FAILED


class Redriving:
    """Has many sends tried again. Raises what Postgres raises."""

    def __init__(self, pool: Pool, log: CommandLog, tail: Tail, folded: FoldedPositions, *, scale: float) -> None:
        self._due = DueSends(pool)
        self._ended = EndedSends(pool)
        self._scale = scale
        self._tail = tail
        self._decisions = Decisions(log, tail, folded, commands=commands.SEND, events=events.SEND)
        self._heard: dict[str, Record] = {}
        tail.listen(self._hears)

    def _hears(self, record: Record, cause: str) -> None:
        self._heard.setdefault(cause, record)

    async def all_of(self, sends: Sequence[EndedSend]) -> list[CameOf]:
        """What came of each, in their order. Looks once more, so that what ended otherwise since then is left alone."""
        live = await self._ended.named([one.send for one in sends])
        known = await self._due.connections(sorted({one.user for one in sends}))
        found = await asyncio.gather(*[self._one(one, live.get(one.send), known[one.user]) for one in sends])
        self._heard.clear()
        return list(found)

    async def _one(self, seen: EndedSend, live: EndedSend | None, known: list[KnownConnection]) -> CameOf:
        if live is None or (live.status == "uncertain" and seen.status != "uncertain"):
            why = f"In the meantime it {MAY_BE_THERE}: name it." if live else REFUSED["unknown"]
            return CameOf(seen.send, "refused", why)
        command = RedriveSend(seen.send, seen.user, seen.owner, BY, known, self._scale, seen.attempt)
        asked = Asked(SEND_COMMANDS.name, seen.user, seen.send, command, "sends")
        try:
            event = (await self._decisions.ask(asked)).event
        except Unsettled as unsettled:
            event = await self._decided_late(unsettled.command_id)
        except OutcomeUnknown:
            event = None
        except NotPromised:
            return CameOf(seen.send, "not_taken", "The log did not take it: is Kafka running?")
        return await self._came_of(seen.send, event)

    async def _decided_late(self, command_id: str) -> Any:
        """None where nobody decides."""
        decided = self._tail.decision_on(command_id)
        try:
            async with asyncio.timeout(DECIDED_SECONDS):
                record = self._heard.get(command_id) or await decided
        except TimeoutError:
            return None
        finally:
            self._tail.forget(command_id)
        return events.SEND.decode(record.header("ce_type"), record.value)

    async def _came_of(self, send: str, event: Any) -> CameOf:
        match event:
            case None:
                return CameOf(send, "undecided")
            case SendCommandRefused():
                return CameOf(send, "refused", REFUSED.get(event.reason, event.reason))
            case CommandLapsed():
                return CameOf(send, "refused", "The log took it too late: try again.")
            case CommandFailed() | CommandUnreadable():
                return CameOf(send, "refused", f"It could not be decided ({event.cause}); dead.letters has it whole.")
        row = (await self._ended.named([send])).get(send)
        if row and row.status == "failed" and row.code in ("no_active_connection", "connection_revoked"):
            return CameOf(send, "refused", "Its user has no connection left that it may go out by.")
        return CameOf(send, "redriven")
