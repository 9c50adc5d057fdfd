"""Delivers: one attempt at one send, granted by the decider before any byte goes to the provider (DESIGN 4, rule 5).

Whatever happens here, the worst is an attempt in doubt, and never a second mail: an attempt is granted once, to one worker,
until a deadline which the worker keeps by a clock of its own; what could send the mail is on record before it is done; and
what came of it is told until it is heard. A worker that dies in between is missed by a timer.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from domain.connection_events import Call, Provider
from domain.delivery import Accepted, Answer, Deferred, InDoubt, Refused, TokenRefused
from domain.outgoing import Traces
from domain.send_commands import ClaimAttempt, ReportAttempt
from domain.send_events import AttemptRefused, AttemptStarted
from handlers.accesses import Accesses, Revoked
from handlers.deliver_parts import (
    AsksDecider,
    LimitsMailboxes,
    Measures,
    NotesUse,
    NotGranted,
    Notes,
    OpensMails,
    Opened,
    SendsMail,
    Trace,
)
from handlers.refresh_parts import TokenUnavailable
from handlers.send_reports import SendReports
from handlers.tiers import Waits, trace_of
from schemas.envelope import Record
from schemas.work import DeliverSend

log = logging.getLogger(__name__)

#: Seconds that an attempt has beside one call to the provider; a scale shortens them.
BESIDE_THE_CALL: Final = 30.0
#: Seconds until a mailbox that has as many sends under way as it may is asked for again.
BUSY_SECONDS: Final = 1.0


class Delivering:
    """What the effect needs. `timeout` are the seconds that one call to a provider may take, `worker` is who tries."""

    def __init__(
        self,
        decider: AsksDecider,
        mails: OpensMails,
        accesses: Accesses,
        providers: Mapping[Provider, SendsMail],
        limits: LimitsMailboxes,
        waits: Waits,
        reports: SendReports,
        uses: NotesUse,
        measures: Measures,
        *,
        worker: str,
        timeout: float,
        scale: float = 1.0,
    ) -> None:
        self._decider = decider
        self._mails = mails
        self._accesses = accesses
        self._providers = providers
        self._limits = limits
        self._waits = waits
        self._reports = reports
        self._uses = uses
        self._measures = measures
        self._worker = worker
        self._seconds = timeout + BESIDE_THE_CALL * scale
        self._scale = scale

    async def act(self, work: DeliverSend, record: Record) -> None:
        """Tries a send, or puts the work where it waits until it may be tried."""
        trace = trace_of(record)
        slot = await self._limits.take(work.provider, work.mailbox)
        if slot is None:
            return await self._put_off(work, trace, BUSY_SECONDS * self._scale)
        try:
            opened = await self._mails.open(work.send, work.connection)
            wait = await self._limits.wait_for_rate(work.provider, work.mailbox)
            if wait:
                return await self._put_off(work, trace, wait)
            await self._try(work, opened, record, trace)
        finally:
            await self._limits.give_back(work.mailbox, slot)

    async def later(self, work: DeliverSend, record: Record) -> None:
        """Too many of its mailbox wait already: it comes back when there is room, and holds up nobody else."""
        await self._put_off(work, trace_of(record), 10 * self._scale)

    async def _put_off(self, work: DeliverSend, trace: Trace, seconds: float) -> None:
        await self._waits.put(replace(work, due=datetime.now(UTC) + timedelta(seconds=seconds)), trace)

    async def _try(self, work: DeliverSend, opened: Opened | None, record: Record, trace: Trace) -> None:
        ends_at = asyncio.get_running_loop().time() + self._seconds
        granted = await self._decider.ask(ClaimAttempt(work.send, work.user, self._worker, self._seconds), trace)
        if isinstance(granted, AttemptRefused):
            if granted.reason == "not_due" and granted.next_at is not None:
                await self._waits.put(replace(work, due=granted.next_at), trace)
            return
        if not isinstance(granted, AttemptStarted):
            log.error("an attempt was neither granted nor refused", extra={"send": work.send})
            return
        self._measures.dispatched(
            granted.provider, max(0.0, datetime.now(UTC).timestamp() - record.timestamp_ms / 1000)
        )
        notes = Notes(self._decider, granted, trace, ends_at=ends_at)
        try:
            answer = await self._answer(granted, opened, notes)
        except NotGranted as why:
            log.warning("an attempt was given up", extra={"send": work.send, "cause": str(why)})
            return
        await self._report(granted, answer, trace)

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, granted: AttemptStarted, opened: Opened | None, notes: Notes) -> Answer:
        """What came of it. Raises NotGranted."""
        if opened is None:
            return Refused("content_erased")
        try:
            async with asyncio.timeout(notes.seconds_left()):
                return await self._with_access(granted, opened, notes)
        except Revoked:
            return Refused("connection_revoked")
        except TokenUnavailable as none:
            return _without_token(none)
        except TimeoutError:
            return InDoubt("timed_out") if notes.touched else Deferred("timed_out")
        except NotGranted:
            raise
        except Exception:
            log.exception("an attempt failed", extra={"send": granted.send})
            return InDoubt("connection_lost") if notes.touched else Deferred("client_broken")

    async def _with_access(self, granted: AttemptStarted, opened: Opened, notes: Notes) -> Answer:
        refused: int | None = None
        for _ in range(2):
            access, version = await self._accesses.access(
                granted.connection, opened.address, opened.scopes, refused=refused
            )
            answer = await self._providers[granted.provider].send(opened.mail, access, _traces(granted, notes), notes)
            self._note(granted, answer)
            if not isinstance(answer, TokenRefused):
                return answer
            refused = version
        return Deferred("token_unavailable")

    def _note(self, granted: AttemptStarted, answer: Answer) -> None:
        outcome: Any = (
            "ok" if isinstance(answer, Accepted) else "failed" if isinstance(answer, InDoubt | Deferred) else "refused"
        )
        call = Call(datetime.now(UTC), "send", "deliver", granted.send, outcome)
        self._uses.note(granted.connection, granted.user, call)

    async def _report(self, granted: AttemptStarted, answer: Answer, trace: Trace) -> None:
        report = _reported(granted, answer, self._scale)
        self._measures.attempted(granted.provider, report.outcome, report.code)
        said = getattr(answer, "said", None)
        if said:
            try:
                sealed = await self._mails.sealed(granted.user, granted.send, granted.attempt, said)
                report = replace(report, said=sealed)
            except Exception:  # what a provider said is worth less than that its outcome is told
                log.exception("a provider's words are lost", extra={"send": granted.send})
        await self._reports.tell_surely(report, trace)


def _without_token(none: TokenUnavailable) -> Deferred:
    if none.reauth:
        return Deferred("reauth_required", counted=False)
    return Deferred("token_unavailable", none.retry_after, counted=False)


def _traces(granted: AttemptStarted, notes: Notes) -> Traces:
    return Traces(
        message_id=granted.message_id,
        marker=granted.send,
        draft=notes.draft_id,
        draft_message=notes.draft_message,
        transmitted=granted.transmitted,
        earlier=granted.attempt > 1,
        last=granted.last,
    )


def _reported(granted: AttemptStarted, answer: Answer, scale: float) -> ReportAttempt:
    about = (granted.send, granted.user, granted.attempt)
    match answer:
        case Accepted():
            return ReportAttempt(
                *about,
                "accepted",
                provider_message_id=answer.provider_message_id,
                thread_id=answer.thread_id,
                refused=answer.refused,
                scale=scale,
            )
        case Deferred():
            return ReportAttempt(
                *about, "deferred", answer.code, retry_after=answer.retry_after, counted=answer.counted, scale=scale
            )
        case Refused():
            return ReportAttempt(*about, "refused", answer.code, refused=answer.refused, scale=scale)
        case InDoubt():
            return ReportAttempt(*about, "in_doubt", answer.code, scale=scale)
        case TokenRefused():
            return ReportAttempt(*about, "deferred", cast("Any", "token_unavailable"), scale=scale)
