"""How connected accounts are doing, for Prometheus: tokens by state, how long they last, and what came of refreshing them."""

import asyncio
import logging
import time
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateways.stores.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
#: A look reads the whole table, and may take this share of the time: with a million connections it is made less often.
SHARE: Final = 0.02
STATES: Final = ("active", "reauth_required", "revoked")
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
            "postledger_connections",
            "Connections of the whole installation by state",
            ["provider", "state"],
            registry=registry,
        )
        self._expiry = Gauge(
            "postledger_token_expiry_seconds",
            "Seconds until the first access token of an active connection in the whole installation expires",
            ["provider"],
            registry=registry,
        )
        self._due = Gauge(
            "postledger_tokens_due",
            "Tokens of the whole installation due to be refreshed",
            ["provider"],
            registry=registry,
        )
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
                await self.look()
            except UNREACHABLE as error:
                log.warning("connections can't be counted", extra={"cause": repr(error)})
            await asyncio.sleep(max(LOOK_SECONDS, (time.monotonic() - began) / SHARE))

    async def look(self) -> None:
        """Sets what is told of the tables. Raises what Postgres raises."""
        rows = await self._pool.fetch(LOOK)
        for gauge in (self._connections, self._expiry, self._due):
            gauge.clear()
        # Without a 0 there would be nothing that the first of a state could have risen from.
        for provider, state in product({row["provider"] for row in rows}, STATES):
            self._connections.labels(provider, state).set(0)
        for provider, state, count, seconds, due in rows:
            self._connections.labels(provider, state).set(count)
            if state == "active" and seconds is not None:
                self._expiry.labels(provider).set(float(seconds))
                self._due.labels(provider).set(due)
