"""What providers allow one mailbox, held over all processes: so much in a window, and so many sends at the same time.

A mailbox is told by what `schemas.work.limited_by` says: at Gmail and Outlook, users who have connected the same one share
what it is allowed. Without Postgres nobody is held back: the provider holds its limits itself, and says so.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from domain.connection_events import Provider
from gateways.stores.postgres import UNREACHABLE, Pool
from gateways.stores.rates import Limit, Rates

log = logging.getLogger(__name__)

#: Mailboxes of which is remembered how many wait.
REMEMBERED: Final = 10_000

#: The first free slot of a mailbox, or the first whose holder has been silent for too long.
TAKE: Final = """
insert into mailbox_slots as s (mailbox, slot, holder, held_until)
select $1, n, $2, now() + $4 * interval '1 second' from generate_series(1, $3) n
where not exists (select from mailbox_slots t where t.mailbox = $1 and t.slot = n and t.held_until > now())
order by n limit 1
on conflict (mailbox, slot) do update set holder = excluded.holder, held_until = excluded.held_until
    where s.held_until <= now()
returning slot
"""
#: For as long as when it was taken, unless somebody else has it by now.
RENEW: Final = """
update mailbox_slots set held_until = now() + $4 * interval '1 second'
where mailbox = $1 and slot = $2 and holder = $3 returning slot
"""
GIVE_BACK: Final = "delete from mailbox_slots where mailbox = $1 and slot = $2 and holder = $3"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one mailbox may do: `window`, of which a send takes `cost`, and sends `at_once`; None where there is no limit."""

    window: Limit | None
    at_once: int | None
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the few sends at a time of a mailbox; `holder` is this use of it. Number 0 counts among none."""

    number: int
    holder: str = ""


UNCOUNTED: Final = Slot(0)


class MailboxLimits:
    """Permits to send. `seconds`: how long a slot is held at the most."""

    def __init__(
        self, pool: Pool, rates: Rates, allowed: Mapping[Provider, Allowed], *, holder: str, seconds: float
    ) -> None:
        self._pool = pool
        self._rates = rates
        self._allowed = allowed
        self._holder = holder
        self._seconds = seconds
        self._bookings: dict[str, float] = {}
        self._taken = 0

    async def wait_for_rate(self, provider: Provider, mailbox: str) -> float:
        """Takes what a send costs of the window; where that is not left, the seconds until it is to be had for this send."""
        limit, cost = self._allowed[provider].window, self._allowed[provider].cost
        if limit is None:
            return 0.0
        standing = await self._rates.admit(limit, mailbox, cost)
        apart = limit.seconds / limit.most * cost
        return self._booked(mailbox, max(0.1, standing.resets_in), apart) if standing.refused else 0.0

    async def spent(self, provider: Provider, mailbox: str, cost: int) -> None:
        """Counts what was done without asking before, so that sends wait in its place."""
        limit = self._allowed[provider].window
        if limit is not None and cost:
            await self._rates.admit(limit, mailbox, min(cost, limit.most))

    def _booked(self, mailbox: str, resets_in: float, apart: float) -> float:
        """Those who are told to wait come back one after the other, as the limit goes, and not all for the next window."""
        now = asyncio.get_running_loop().time()
        at = max(now + resets_in, self._bookings.get(mailbox, 0.0) + apart)
        if len(self._bookings) > REMEMBERED:
            self._bookings = {name: booked for name, booked in self._bookings.items() if booked > now}
        self._bookings[mailbox] = at
        return at - now

    async def take(self, provider: Provider, mailbox: str) -> Slot | None:
        """A slot; None where all are taken."""
        at_once = self._allowed[provider].at_once
        if at_once is None:
            return UNCOUNTED
        self._taken += 1
        holder = f"{self._holder}/{self._taken}"
        try:
            found: int | None = await self._pool.fetchval(TAKE, mailbox, holder, at_once, self._seconds)
        except UNREACHABLE:
            log.warning("a mailbox's slots are not counted")
            return UNCOUNTED
        return None if found is None else Slot(found, holder)

    async def renew(self, mailbox: str, slot: Slot) -> bool:
        """Holds it for as long again; False where it was held for too long, and is somebody else's."""
        if not slot.number:
            return True
        try:
            found = await self._pool.fetchval(RENEW, mailbox, slot.number, slot.holder, self._seconds)
        except UNREACHABLE:
            log.warning("a mailbox's slots are not counted")
            return True
        return found is not None

    async def give_back(self, mailbox: str, slot: Slot) -> None:
        """Nothing happens where it was held for too long, and is somebody else's."""
        if slot.number:
            try:
                await self._pool.execute(GIVE_BACK, mailbox, slot.number, slot.holder)
            except UNREACHABLE:
                log.warning("a mailbox's slot is given back by time alone")
