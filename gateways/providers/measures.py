"""What is counted of calls to providers, for Prometheus."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram


class Outcome:
    """How a call ended; `cut` until somebody says."""

    def __init__(self) -> None:
        self.name = "cut"

    def is_(self, name: str) -> None:
        self.name = name


class ProviderMeasures:
    """Calls by provider, what for, and outcome, and the seconds they took; logins to mail servers are calls as well."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "postledger_provider_calls_total",
            "Calls to providers",
            ["provider", "operation", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "postledger_provider_call_seconds",
            "Seconds of a call to a provider",
            ["provider", "operation"],
            buckets=[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
            registry=registry,
        )

    @contextmanager
    def call(self, provider: str, operation: str) -> Iterator[Outcome]:
        """One call, from here to the end of the block."""
        outcome, began = Outcome(), time.perf_counter()
        try:
            yield outcome
        finally:
            self._calls.labels(provider, operation, outcome.name).inc()
            self._seconds.labels(provider, operation).observe(time.perf_counter() - began)
