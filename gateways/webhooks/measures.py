"""How webhooks are doing, for Prometheus: attempts by outcome, how long they took, what waits, and what was disabled."""

import asyncio
import logging
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateways.stores.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
LOOK: Final = """
select (select count(*) from deliveries where status = 'pending'),
    (select count(*) from webhooks where disabled is not null)
"""


class WebhookMeasures:
    """Counted as it happens, and looked up every few seconds."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._attempts = Counter(
            "postledger_webhook_attempts_total", "Attempts to deliver webhooks", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "postledger_webhook_seconds", "Seconds that a receiver took to answer", buckets=BUCKETS, registry=registry
        )
        self._put_off = Counter(
            "postledger_webhooks_put_off_total",
            "Attempts put off, since their receiver fails, asked to be left alone, or has very much waiting",
            registry=registry,
        )
        self._waiting = Gauge(
            "postledger_webhooks_waiting",
            "Deliveries of the whole installation that have not ended",
            registry=registry,
        )
        self._disabled = Gauge(
            "postledger_webhooks_disabled",
            "Endpoints of the whole installation that are disabled",
            registry=registry,
        )

    def attempted(self, outcome: str, seconds: float) -> None:
        """`outcome`: delivered, or why not."""
        self._attempts.labels(outcome).inc()
        self._seconds.observe(seconds)

    def put_off(self) -> None:
        self._put_off.inc()

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres is waited for."""
        while True:
            try:
                waiting, disabled = await self._pool.fetchrow(LOOK)
            except UNREACHABLE as error:
                log.warning("webhooks can't be counted", extra={"cause": repr(error)})
            else:
                self._waiting.set(waiting)
                self._disabled.set(disabled)
            await asyncio.sleep(LOOK_SECONDS)
