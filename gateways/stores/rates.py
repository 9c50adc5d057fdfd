"""Rates, counted over all processes (DESIGN 8).

A limit is so many permits in a window that begins with its first use; what all processes took in it is one row of Postgres.

`spend` takes one permit there: exact, a few round trips, for what is rare and dear. `admit` costs none on its way: a process
takes permits in small leases, in the background and ahead of need, and gives them out from memory. What accuracy that has:
- no permit is given out twice, so leases never add up to more than the limit;
- before its first lease of a window, a process lets a fortieth of the limit pass on credit. Credit is paid back out of
  the next lease, and is over the limit only where no lease follows: a fortieth (2.5 %) for each further process;
- a lease is no larger than half of what the process used in this window, and a twentieth of the limit at most: what it takes
  and then does not use is lost to the others until the window ends, 5 % at the worst.
So a caller who asks seldom costs nothing at all, and one at the limit twenty leases a window.

Where Postgres does not answer, `spend` raises, and `admit` lets each process give out the whole limit by itself: what
follows will need Postgres too, and say so. Windows are timed by Postgres's clock: nobody else's may jump.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from gateways.stores.postgres import ANSWER_SECONDS, UNREACHABLE, Pool, answered

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limit:
    """`most` permits in a window of `seconds`."""

    name: str
    most: int
    seconds: int

    @property
    def largest_lease(self) -> int:
        return max(1, self.most // 20)

    @property
    def credit(self) -> int:
        return self.most // 40


CREATION: Final = Limit("creation", 60, 60)
REQUESTS: Final = Limit("requests", 100, 1)
SENDS: Final = Limit("sends", 60, 60)

#: Seconds a lease may take before this process counts alone. The request that waits for it goes on to ask Postgres for what
#: it came for, and both together have to fit into the ten seconds of an answer.
LEASE_SECONDS: Final = 2.0
#: Seconds between looks for rows that nobody asks for any more.
SWEEP_SECONDS: Final = 60.0

# A process that vanishes with the lock keeps it no longer than this: whoever shares the bucket would be told 503 until then.
LOCK: Final = """
select set_config('idle_in_transaction_session_timeout', '3s', true), pg_advisory_xact_lock(hashtextextended($1, 0))
"""
TAKE: Final = """
with clock as materialized (select clock_timestamp() as now),
live as (select window_start, used from rates, clock where bucket = $1 and window_start > now - $4::interval),
gone as (delete from rates using clock where bucket = $1 and window_start <= now - $4::interval),
grant_of as (
    select coalesce(max(window_start), (select now from clock)) as since, coalesce(sum(used), 0)::int as used,
        greatest(0, least($2::int, $3::int - coalesce(sum(used), 0)::int)) as granted
    from live),
taken as (
    insert into rates as r (bucket, window_start, used) select $1, since, granted from grant_of
    on conflict (bucket, window_start) do update set used = r.used + excluded.used)
select granted, $3::int - used - granted as "left", extract(epoch from since + $4::interval - now)::float as resets_in
from grant_of, clock
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands: permits left and seconds until the window ends; `refused` where there was none to give."""

    limit: Limit
    left: int
    resets_in: float
    refused: bool


@dataclass(slots=True)
class Lease:
    """What this process holds of one caller's window; times are those of the event loop."""

    until: float = 0.0
    permits: int = 0
    used: int = 0
    owed: int = 0
    left: int = 0
    full: bool = False
    taking: asyncio.Task[None] | None = None


class Rates:
    """Permits for callers, by limit and whoever the caller is."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._leases: dict[str, Lease] = {}
        self._swept = 0.0
        self._sweeping: asyncio.Task[None] | None = None

    async def spend(self, limit: Limit, who: str) -> Standing:
        """Takes one permit for good; raises what Postgres raises, TimeoutError where it does not answer in time."""
        now = asyncio.get_running_loop().time()
        bucket, lease = self._lease(limit, who, now)
        if lease.full:
            return Standing(limit, 0, lease.until - now, refused=True)
        granted, left, resets_in = await answered(self._take(bucket, limit, 1), ANSWER_SECONDS)
        lease.until = asyncio.get_running_loop().time() + resets_in
        lease.full = granted == 0
        return Standing(limit, left, resets_in, refused=lease.full)

    async def admit(self, limit: Limit, who: str, permits: int = 1) -> Standing:
        """Takes permits out of this process's lease, waiting for a new lease only where the last one is used up.

        All of them or none: what is too little for this caller stays for one who needs less.
        """
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            bucket, lease = self._lease(limit, who, now)
            if lease.permits >= permits:
                lease.permits -= permits
                lease.used += permits
                if lease.permits < permits and not lease.full:
                    self._renew(bucket, limit, lease, permits)
                return Standing(limit, lease.left + lease.permits, lease.until - now, refused=False)
            if lease.full:
                return Standing(limit, 0, lease.until - now, refused=True)
            if lease.used + permits <= limit.credit:
                lease.used += permits
                lease.owed += permits
                return Standing(limit, limit.most - lease.used, lease.until - now, refused=False)
            lease.taking = self._renew(bucket, limit, lease, permits)
            await asyncio.shield(lease.taking)

    async def close(self) -> None:
        """Waits for leases that are being taken."""
        tasks = [self._sweeping, *(lease.taking for lease in self._leases.values())]
        await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)

    def _lease(self, limit: Limit, who: str, now: float) -> tuple[str, Lease]:
        """The caller's bucket and what we hold of its window: nothing of one that is over."""
        bucket = f"{limit.name}:{who}"
        self._sweep(now)
        lease = self._leases.get(bucket)
        if lease is None:
            lease = self._leases[bucket] = Lease()
        if lease.until <= now and lease.taking is None:
            lease.permits = lease.used = lease.owed = 0
            lease.full = False
            lease.until = now + limit.seconds
        return bucket, lease

    def _renew(self, bucket: str, limit: Limit, lease: Lease, permits: int) -> asyncio.Task[None]:
        if lease.taking is None:
            lease.taking = asyncio.get_running_loop().create_task(self._lengthen(bucket, limit, lease, permits))
        return lease.taking

    async def _lengthen(self, bucket: str, limit: Limit, lease: Lease, permits: int) -> None:
        """`permits`: what whoever waits for it needs at least."""
        owed = lease.owed
        wanted = owed + max(permits - lease.permits, min(limit.largest_lease, max(1, lease.used // 2)))
        try:
            granted, lease.left, resets_in = await answered(self._take(bucket, limit, wanted), LEASE_SECONDS)
        except UNREACHABLE as error:
            log.warning("a rate is counted in this process alone", extra={"cause": repr(error)})
            granted, lease.left, resets_in = owed + limit.most - lease.used, 0, float(limit.seconds)
            wanted = granted + 1  # that is all there is until the window ends
        finally:
            lease.taking = None
        until = asyncio.get_running_loop().time() + resets_in
        if until > lease.until + limit.seconds / 2:
            lease.permits = lease.used = 0  # what was left of the window before is void in this one
        lease.until = until
        lease.permits += max(0, granted - owed)
        lease.owed = max(0, lease.owed - granted)
        lease.full = granted < wanted

    async def _take(self, bucket: str, limit: Limit, wanted: int) -> tuple[int, int, float]:
        """Permits granted, permits left after that, and seconds until the window ends."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK, bucket)
            (row,) = await connection.fetch(TAKE, bucket, wanted, limit.most, timedelta(seconds=limit.seconds))
        return row["granted"], row["left"], row["resets_in"]

    def _sweep(self, now: float) -> None:
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        over = [bucket for bucket, lease in self._leases.items() if lease.until <= now and lease.taking is None]
        for bucket in over:
            del self._leases[bucket]
        self._sweeping = asyncio.get_running_loop().create_task(self._forget_rows())

    async def _forget_rows(self) -> None:
        with contextlib.suppress(*UNREACHABLE):
            await self._pool.execute("delete from rates where window_start < now() - interval '1 hour'")
