"""Asks providers what became of attempts in doubt, at growing intervals, until it is proven or there is no further look.

It sends nothing. What it finds is told to the decider, which lets the same draft be sent again only where that is proven to
be still a draft.
"""

import logging
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
from schemas.work import LookForSend

log = logging.getLogger(__name__)

#: Providers that may show for a moment what they had before, and would send a draft again that they have sent: there it has
#: to be absent twice, so many seconds apart.
SLOW_TO_SHOW: Final[dict[Provider, float]] = {"outlook": 1.5}


class Reconciling:
    """Looks at attempts in doubt."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def act(self, work: LookForSend, record: Record) -> None:
        """One look, and what follows from it."""
        following = retry.look_at(work.number + 1, work.first, self._parts.scale)
        found = await self._found(work, last=following is None)
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

    async def _found(self, work: LookForSend, *, last: bool) -> Found:
        known = await self._parts.mails.address(work.connection)
        if known is None:
            return NotProven("not_allowed")
        traces = Traces(work.message_id, work.send, work.draft, work.draft_message, transmitted=work.draft is None)
        try:
            access, version = await self._parts.accesses.access(work.connection, *known)
            found = await self._parts.providers[work.provider].look(traces, access, last=last)
            if isinstance(found, TokenRefused):
                access, _ = await self._parts.accesses.access(work.connection, *known, refused=version)
                found = await self._parts.providers[work.provider].look(traces, access, last=last)
        except Revoked:
            return NotProven("not_allowed")
        except TokenUnavailable as none:
            return NotProven("token_unavailable", none.retry_after)
        except Exception:
            log.exception("a look failed", extra={"send": work.send})
            return NotProven("server_error")
        self._parts.uses.note(work.connection, work.user, Call(datetime.now(UTC), "look", "reconcile", work.send, "ok"))
        return NotProven("token_unavailable") if isinstance(found, TokenRefused) else found


def _seconds_to_another(work: LookForSend, found: Found) -> float | None:
    """How long another look has to wait at least; None where this one is the last word."""
    if isinstance(found, NotProven):
        # Who may not search, and has no draft to ask for, will never be told anything.
        return None if found.code == "not_allowed" and work.draft is None else found.retry_after or 0.0
    if isinstance(found, ProvenAbsent) and work.provider in SLOW_TO_SHOW and not work.absent:
        return SLOW_TO_SHOW[work.provider]
    return None
