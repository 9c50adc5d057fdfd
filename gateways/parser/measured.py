"""The parser, measured for Prometheus: how long mails take, and what becomes of them."""

from time import perf_counter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateways.parser.pool import Parsed, ParserPool

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class MeasuredParserPool(ParserPool):
    """The parser, measured: `limits` are `quick`, as mail comes in, or `full`, for mail that took longer."""

    def __init__(self, registry: CollectorRegistry, **more: Any) -> None:
        super().__init__(**more)
        self._seconds = Histogram(
            "postledger_parse_seconds",
            "Seconds for a mail, waiting for a parser included",
            ["limits"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._parsed = Counter(
            "postledger_mails_parsed_total",
            "Mails given to the parser",
            ["limits", "outcome", "cause"],
            registry=registry,
        )

    async def parse(self, raw: bytes, *, full: bool = False) -> Parsed:
        limits, began = "full" if full else "quick", perf_counter()
        try:
            parsed = await super().parse(raw, full=full)
        except Exception:
            self._parsed.labels(limits, "not_parsed", "no_parser").inc()
            raise
        self._seconds.labels(limits).observe(perf_counter() - began)
        self._parsed.labels(limits, parsed.state, parsed.cause or "").inc()
        return parsed
