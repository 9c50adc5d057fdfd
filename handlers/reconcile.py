"""Asks providers what became of attempts in doubt, at growing intervals, until it is proven or there is no further look.

It sends nothing. What it finds is told to the decider, which lets the same draft be sent again only where that is proven to
be still a draft.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from domain import retry
from domain.connection_events import Call, Provider
from domain.delivery import Found, NotProven, ProvenAbsent, ProvenSent, TokenRefused
from domain.outgoing import Traces
from domain.send_commands import ReportReconciled
from handlers.accesses import Revoked
from handlers.deliver_parts import Parts
from handlers.refresh_parts import TokenUnavailable
from handlers.tiers import trace_of
from schemas.envelope import Record
from schemas.work import LookForSend, limited_by

log = logging.getLogger(__name__)

#: Providers that may show for a moment what they had before, and would send a draft again that they have sent: there it has
#: to be absent twice, so many seconds apart.
SLOW_TO_SHOW: Final[dict[Provider, float]] = {"outlook": 1.5}
#: States in which the last attempt of a send may be in doubt, or is for ever.
OPEN: Final = frozenset({"sending", "uncertain"})


class Reconciling:
    """Looks at attempts in doubt."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def act(self, work: LookForSend, record: Record) -> None:
        """One look, and what follows from it; none where nothing is in doubt any more.

        A worker that takes over finds again all the looks since the oldest that had not ended, with what came of most.
        """
        if await self._is_over(work):
            return
        following = retry.look_at(work.number + 1, work.first, self._parts.scale)
        spent: list[int] = []
        found = await self._found(work, spent.append, last=following is None)
        await self._count(work, sum(spent))
        trace = trace_of(record)
        if following is not None and (seconds := _seconds_to_another(work, found)) is not None:
            due = max(following, datetime.now(UTC) + timedelta(seconds=seconds))
            next_look = replace(work, number=work.number + 1, due=due, absent=isinstance(found, ProvenAbsent))
            await self._parts.waits.put(next_look, trace)
            return
        about = (work.send, work.user, work.attempt)
        match found:
            case ProvenSent():
                report = ReportReconciled(
                    *about, "proven_sent", found.provider_message_id, found.thread_id, scale=self._parts.scale
                )
            case ProvenAbsent():
                report = ReportReconciled(*about, "proven_absent", scale=self._parts.scale)
            case _:
                report = ReportReconciled(*about, "unknown", scale=self._parts.scale)
        await self._parts.reports.tell_surely(report, trace)

    async def _is_over(self, work: LookForSend) -> bool:
        """An uncertain send is looked for all the same: what is proven late is as true."""
        standing = await self._parts.mails.standing(work.send)
        if standing is None:
            return False
        state, attempt = standing
        return attempt > work.attempt or (attempt == work.attempt and state not in OPEN)

    async def _count(self, work: LookForSend, spent: int) -> None:
        """A look is held back by no count of ours, for what it shows can't wait; sends do, in its place."""
        try:
            await self._parts.limits.spent(work.provider, limited_by(work), spent)
        except Exception:  # the provider holds its limits itself
            log.exception("looks at a mailbox are not counted")

    async def _found(self, work: LookForSend, spends: Callable[[int], None], *, last: bool) -> Found:
        known = await self._parts.mails.address(work.connection)
        if known is None:
            return NotProven("not_allowed")
        traces = Traces(work.message_id, work.send, work.draft, work.draft_message, transmitted=work.draft is None)
        accesses, sender = self._parts.accesses, self._parts.providers[work.provider]
        try:
            access, version = await accesses.access(work.connection, *known)
            found = await sender.look(traces, access, last=last, spends=spends)
            if isinstance(found, TokenRefused):
                access, version = await accesses.access(work.connection, *known, refused=version)
                found = await sender.look(traces, access, last=last, spends=spends)
            if isinstance(found, TokenRefused):
                raise await accesses.token_refused(work.connection, work.user, version)
        except Revoked:
            return NotProven("not_allowed")
        except TokenUnavailable as none:
            return NotProven("token_unavailable", none.retry_after)
        except Exception:
            log.exception("a look failed", extra={"send": work.send})
            return NotProven("server_error")
        in_vain = isinstance(found, NotProven) and found.code != "nothing_found"
        call = Call(datetime.now(UTC), "look", "reconcile", work.send, "failed" if in_vain else "ok")
        self._parts.uses.note(work.connection, work.user, call)
        return found


def _seconds_to_another(work: LookForSend, found: Found) -> float | None:
    """How long another look has to wait at least; None where this one is the last word."""
    if isinstance(found, NotProven):
        # Who may not search, and has no draft to ask for, will never be told anything.
        return None if found.code == "not_allowed" and work.draft is None else found.retry_after or 0.0
    if isinstance(found, ProvenAbsent) and work.provider in SLOW_TO_SHOW and not work.absent:
        return SLOW_TO_SHOW[work.provider]
    return None
