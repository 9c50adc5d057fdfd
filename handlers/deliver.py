"""Delivers: one attempt at one send, granted by the decider before any byte goes to the provider (DESIGN 4, rule 5).

Whatever happens here, the worst is an attempt in doubt, and never a second mail: an attempt is granted once, to one worker,
until a deadline which the worker keeps by a clock of its own; what could send the mail is on record before it is done; and
what came of it is told until it is heard. A worker that dies in between is missed by a timer.
"""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from domain.connection_events import Call, Provider
from domain.delivery import Accepted, Answer, Deferred, InDoubt, Refused, TokenRefused
from domain.outgoing import Traces
from domain.send import FOR_ACCESS
from domain.send_commands import ClaimAttempt, ReportAttempt, WakeSend
from domain.send_events import AttemptRefused, AttemptStarted
from handlers.accesses import AccessRefused, Revoked
from handlers.deliver_parts import NoPermit, Notes, NotGranted, Opened, Parts, Trace
from handlers.pauses import Pauses
from handlers.refresh_parts import TokenUnavailable
from handlers.tiers import trace_of
from handlers.turns import Turn
from schemas.envelope import Record
from schemas.work import DeliverSend, limited_by

log = logging.getLogger(__name__)

#: Seconds that an attempt has beside one call to the provider; a scale shortens them.
BESIDE_THE_CALL: Final = 30.0
#: Seconds of those that making ready may take, until the place is taken for all of them again; a scale shortens them.
READY_SECONDS: Final = 1.0
#: Seconds until a mailbox that has as many sends under way as it may is asked for again.
BUSY_SECONDS: Final = 1.0
#: Seconds until a send is asked for again that came too early by the decider's clock: ours may be ahead of it. No scale
#: shortens them: each time is on record for ever.
EARLY_SECONDS: Final = 0.2
#: Seconds until a send comes back before which very many of its connection wait.
LATER_SECONDS: Final = 60.0


class Delivering:
    """Attempts. `timeout` are the seconds that one call to a provider may take, `worker` is who tries."""

    def __init__(self, parts: Parts, *, worker: str, timeout: float) -> None:
        self._parts = parts
        self._worker = worker
        self._seconds = timeout + BESIDE_THE_CALL * parts.scale
        self._pauses = Pauses(scale=parts.scale)

    async def act(self, work: DeliverSend, record: Record) -> None:
        """Tries a send, or puts the work where it waits until it may be tried."""
        turn = await self._parts.turns.begin()
        try:
            await self._in_turn(work, record, turn)
        finally:
            turn.end()

    async def _in_turn(self, work: DeliverSend, record: Record, turn: Turn) -> None:
        limits, mailbox, ends_at = self._parts.limits, limited_by(work), self._ends_at()
        slot = await limits.take(work.provider, mailbox)
        if slot is None:
            return await self._when_it_has_room(work, record)
        opened: Opened | None = None
        try:
            known = self._pauses.answer(mailbox) or await self._refusal(work.connection)
            if known is None:
                opened, known = await self._opened(work)
            if self._ends_at() - ends_at > READY_SECONDS * self._parts.scale:
                ends_at = self._ends_at()
                if not await limits.renew(mailbox, slot):
                    return await self._when_it_has_room(work, record)
            await self._try(work, record, opened, known, turn, ends_at=ends_at)
        finally:
            await self._parts.mails.close(opened)
            await limits.give_back(mailbox, slot)

    def _ends_at(self) -> float:
        """When an attempt ends that begins now. Where that is asked before its place is taken, its place outlives it."""
        return asyncio.get_running_loop().time() + self._seconds

    async def _when_it_has_room(self, work: DeliverSend, record: Record) -> None:
        busy = datetime.now(UTC) + timedelta(seconds=BUSY_SECONDS * self._parts.scale)
        await self._parts.waits.put(replace(work, due=busy), trace_of(record))

    async def later(self, work: DeliverSend, record: Record) -> None:
        """Too many of its connection wait already: it is told to come back, and holds up nobody else."""
        seconds = LATER_SECONDS * self._parts.scale + self._pauses.behind(work.connection)
        wait = Deferred("mailbox_busy", seconds, counted=False)
        turn = await self._parts.turns.begin()
        await self._try(work, record, None, wait, turn, ends_at=self._ends_at())

    async def _refusal(self, connection: str) -> Answer | None:
        """What comes of it where the provider has refused all that we have to call it with; None where it may be asked."""
        refused = await self._parts.accesses.refusal(connection)
        return None if refused is None else self._without_token(connection, refused)

    async def _opened(self, work: DeliverSend) -> tuple[Opened | None, Answer | None]:
        """The mail, None where it is gone for good; or what comes of an attempt because it can't be read.

        Raises where it can't be had at the moment.
        """
        try:
            return await self._parts.mails.open(work.send, work.connection), None
        except (LookupError, ValueError) as error:
            # In its place it would hold up its mailbox for ever. The error's own words may hold what the mail says.
            log.error("a mail can't be opened", extra={"send": work.send, "cause": type(error).__name__})
            return None, Deferred("client_broken", counted=False)

    async def _try(
        self,
        work: DeliverSend,
        record: Record,
        opened: Opened | None,
        known: Answer | None,
        turn: Turn,
        *,
        ends_at: float,
    ) -> None:
        """Claims an attempt and makes it; where `known` says what would come of it, without asking the provider.

        A claim is waited for as long as the attempt could last: what is granted to nobody counts among the attempts.
        """
        parts, trace = self._parts, trace_of(record)
        try:
            claim = ClaimAttempt(work.send, work.user, self._worker, self._seconds, work.connection)
            granted = await parts.decider.ask(claim, trace, until=ends_at)
        finally:
            turn.end()
        if isinstance(granted, AttemptRefused):
            if granted.reason == "not_due":
                await self._come_back(work, granted.next_at, trace)
            return
        if not isinstance(granted, AttemptStarted):
            log.error("an attempt was neither granted nor refused", extra={"send": work.send})
            return
        parts.measures.dispatched(
            granted.provider, max(0.0, datetime.now(UTC).timestamp() - record.timestamp_ms / 1000)
        )
        notes = Notes(parts.decider, granted, trace, ends_at=ends_at)
        if known is None and notes.seconds_left() <= 0:
            known = Deferred("out_of_time", counted=False)
        try:
            answer = known or await self._answer(granted, limited_by(work), opened, notes)
        except NotGranted as why:
            log.warning("an attempt was given up", extra={"send": work.send, "cause": str(why)})
            return
        except NoPermit as none:
            answer = known = Deferred("rate_limited", none.seconds, counted=False)
        if known is None:
            self._pauses.heard(limited_by(work), answer)
        await self._report(granted, answer, trace)

    async def _take_permit(self, provider: Provider, mailbox: str) -> None:
        """For an attempt that was granted and has what to call with: all others would take it in vain. Raises NoPermit."""
        try:
            wait = await self._parts.limits.wait_for_rate(provider, mailbox)
        except Exception:  # the provider holds its limits itself
            log.exception("a mailbox's sends are not counted")
            return
        if wait:
            raise NoPermit(wait)

    async def _come_back(self, work: DeliverSend, next_at: datetime | None, trace: Trace) -> None:
        """Work of before the last deferral is dropped: what was deferred has work of its own, and a timer beside it."""
        if next_at is None or work.due is None or work.due < next_at:
            return
        again = max(next_at, datetime.now(UTC) + timedelta(seconds=EARLY_SECONDS))
        await self._parts.waits.put(replace(work, due=again), trace)

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, granted: AttemptStarted, mailbox: str, opened: Opened | None, notes: Notes) -> Answer:
        """What came of it. Raises NotGranted and NoPermit."""
        if opened is None:
            return Refused("content_erased")
        try:
            async with asyncio.timeout(notes.seconds_left()):
                return await self._with_access(granted, mailbox, opened, notes)
        except Revoked:
            return Refused("connection_revoked")
        except TokenUnavailable as none:
            return self._without_token(granted.connection, none)
        except TimeoutError:
            return _cut_off(notes, InDoubt("timed_out"), Deferred("timed_out"))
        except (NotGranted, NoPermit):
            raise
        except Exception:
            log.exception("an attempt failed", extra={"send": granted.send})
            return _cut_off(notes, InDoubt("connection_lost"), Deferred("client_broken"))

    async def _with_access(self, granted: AttemptStarted, mailbox: str, opened: Opened, notes: Notes) -> Answer:
        connection, accesses, refused = granted.connection, self._parts.accesses, None
        async with accesses.trying(connection) as trying:
            while True:
                access, version = await accesses.access(connection, opened.address, opened.scopes, refused=refused)
                if refused is None:
                    await self._take_permit(granted.provider, mailbox)
                notes.token_refused = False
                answer = await self._parts.providers[granted.provider].send(
                    opened.mail, access, _traces(granted, notes), notes
                )
                notes.token_refused = isinstance(answer, TokenRefused)
                self._note(granted, answer)
                match answer:
                    case TokenRefused() if refused is None:
                        refused = version
                        await trying.alone()
                    case TokenRefused():
                        raise await accesses.token_refused(connection, granted.user, version)
                    case Deferred(code="reauth_required"):
                        await accesses.login_failed(connection, granted.user, version)
                        return answer
                    case Accepted():
                        accesses.taken(connection)
                        return answer
                    case _:
                        return answer

    def _without_token(self, connection: str, none: TokenUnavailable) -> Deferred:
        """One after the other comes back, and not all at once to hear the same."""
        if isinstance(none, AccessRefused):
            seconds = (none.retry_after or 0.0) + self._pauses.behind(connection)
            return Deferred(none.code, seconds, counted=False)
        return Deferred("token_unavailable", none.retry_after, counted=False)

    def _note(self, granted: AttemptStarted, answer: Answer) -> None:
        outcome: Any = (
            "ok" if isinstance(answer, Accepted) else "failed" if isinstance(answer, InDoubt | Deferred) else "refused"
        )
        call = Call(datetime.now(UTC), "send", "deliver", granted.send, outcome)
        self._parts.uses.note(granted.connection, granted.user, call)

    async def _report(self, granted: AttemptStarted, answer: Answer, trace: Trace) -> None:
        report = _reported(granted, answer, self._parts.scale)
        self._parts.measures.attempted(granted.provider, report.outcome, report.code)
        said = getattr(answer, "said", None)
        if said:
            try:
                sealed = await self._parts.mails.sealed(granted.user, granted.send, granted.attempt, said)
                report = replace(report, said=sealed)
            except Exception:  # what a provider said is worth less than that its outcome is told
                log.exception("a provider's words are lost", extra={"send": granted.send})
        await self._parts.reports.tell_surely(report, trace)
        if isinstance(answer, Deferred) and answer.code in FOR_ACCESS:
            await self._wake_if_renewed(granted, trace)

    async def _wake_if_renewed(self, granted: AttemptStarted, trace: Trace) -> None:
        """Whoever connected the mailbox again while the attempt ran woke those only that waited by then."""
        try:
            renewed = await self._parts.accesses.renewed(granted.connection)
        except Exception:  # then it goes on when its wait is over
            log.exception("a vault can't be asked", extra={"send": granted.send})
            return
        if renewed:
            wake = WakeSend(granted.send, granted.user, granted.connection, self._parts.scale)
            await self._parts.reports.tell_surely(wake, trace)


def _cut_off(notes: Notes, doubt: InDoubt, otherwise: Deferred) -> InDoubt | Deferred:
    """What comes of an attempt that did not get to its end."""
    if notes.token_refused:
        return Deferred("token_unavailable", counted=False)
    return doubt if notes.touched else otherwise


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
