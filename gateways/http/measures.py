"""What the HTTP surface measures of itself, for Prometheus. No ids in labels."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: What a request counts under whose path is none of ours.
UNMATCHED: Final = "unmatched"


class Measures:
    """Requests by method, route and status, and how long they took in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "postledger_http_requests_total", "HTTP requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "postledger_http_request_seconds",
            "Seconds from a request's head to the end of its answer",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        # Looking a child up by its labels costs more than counting.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._counters[method, route, status] = self._requests.labels(method, route, str(status))
        counter.inc()
        histogram = self._histograms.get((method, route))
        if histogram is None:
            histogram = self._histograms[method, route] = self._seconds.labels(method, route)
        histogram.observe(seconds)
