"""How connected accounts are doing, for Prometheus: tokens by state, how long they last, and what came of refreshing them."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateways.stores.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
#: A look reads the whole table, and may take this share of the time: with a million connections it is made less often.
SHARE: Final = 0.02
LOOK: Final = """
select provider, state, count(*), extract(epoch from min(token_expires_at) - now()),
    count(*) filter (where refresh_due <= now() and token_expires_at is not null)
from connections group by provider, state
"""


class TokenMeasures:
    """Looked up every few seconds, and counted as it happens."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._connections = Gauge(
            "postledger_connections", "Connections by state", ["provider", "state"], registry=registry
        )
        self._expiry = Gauge(
            "postledger_token_expiry_seconds",
            "Seconds until the first access token of an active connection expires",
            ["provider"],
            registry=registry,
        )
        self._due = Gauge("postledger_tokens_due", "Tokens due to be refreshed", ["provider"], registry=registry)
        self._refreshes = Counter(
            "postledger_token_refreshes_total", "Refreshes tried", ["provider", "outcome"], registry=registry
        )

    def refreshed(self, provider: str, outcome: str) -> None:
        """`outcome`: refreshed, transient, client_broken or invalid_grant."""
        self._refreshes.labels(provider, outcome).inc()

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres is waited for."""
        while True:
            began = time.monotonic()
            try:
                rows = await self._pool.fetch(LOOK)
            except UNREACHABLE as error:
                log.warning("connections can't be counted", extra={"cause": repr(error)})
            else:
                self._show(rows)
            await asyncio.sleep(max(LOOK_SECONDS, (time.monotonic() - began) / SHARE))

    def _show(self, rows: Sequence[Any]) -> None:
        for gauge in (self._connections, self._expiry, self._due):
            gauge.clear()
        for provider, state, count, seconds, due in rows:
            self._connections.labels(provider, state).set(count)
            if state == "active" and seconds is not None:
                self._expiry.labels(provider).set(float(seconds))
                self._due.labels(provider).set(due)
