"""How sends are doing, for Prometheus: how many wait in which state, how soon they are tried, what came of each attempt, and
how each of them ended."""

import asyncio
import logging
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from domain.connection_events import Provider
from gateways.stores.postgres import UNREACHABLE, Pool
from projections.send_lists import USER_IS_THERE

log = logging.getLogger(__name__)

#: Seconds between looks at the tables.
LOOK_SECONDS: Final = 5.0
#: States in which something is still to happen, by us or by somebody who looks after it; the rest of them is history.
OPEN: Final = ("scheduled", "queued", "sending", "deferred", "uncertain", "dead_lettered")
COUNT: Final = f"""
select status, count(*) from sends where status not in ('sent', 'failed', 'cancelled') and {USER_IS_THERE} group by status
"""  # noqa: S608 - a constant
OLDEST: Final = """
select coalesce(extract(epoch from now() - min(due)), 0) from sends where due <= now()
"""
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class SendMeasures:
    """What one worker sees of sends."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._dispatch = Histogram(
            "postledger_send_dispatch_seconds",
            "Seconds from work being queued to its attempt being granted",
            ["provider"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._attempts = Counter(
            "postledger_send_attempts_total",
            "Attempts by what came of them",
            ["provider", "outcome", "code"],
            registry=registry,
        )
        self._ended = Counter(
            "postledger_sends_ended_total",
            "Sends that have ended, by how and why",
            ["provider", "status", "code"],
            registry=registry,
        )
        self._open = Gauge(
            "postledger_sends_open",
            "Sends of the whole installation in which something is still to happen",
            ["status"],
            registry=registry,
        )
        self._overdue = Gauge(
            "postledger_sends_overdue_seconds",
            "Seconds since the oldest due timer of a send in the whole installation",
            registry=registry,
        )

    def dispatched(self, provider: Provider, seconds: float) -> None:
        self._dispatch.labels(provider).observe(seconds)

    def attempted(self, provider: Provider, outcome: str, code: str | None) -> None:
        self._attempts.labels(provider, outcome, code or "").inc()

    def ended(self, provider: str | None, status: str, code: str | None) -> None:
        self._ended.labels(provider or "", status, code or "").inc()

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres is waited for."""
        while True:
            try:
                await self.look()
            except UNREACHABLE as error:
                log.warning("sends can't be counted", extra={"cause": repr(error)})
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Sets what is told of the tables. Raises what Postgres raises."""
        found = dict(await self._pool.fetch(COUNT))
        for status in OPEN:
            self._open.labels(status).set(found.get(status, 0))
        self._overdue.set(float(await self._pool.fetchval(OLDEST)))
