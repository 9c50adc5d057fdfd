"""The log, measured for Prometheus: how long appends take, those that fail, and what ends among the dead letters."""

from time import perf_counter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateways.log.command_log import CommandLog, NotPromised
from gateways.log.dead_letters import DeadLetters
from gateways.log.event_log import Batch, EventLog
from schemas.envelope import Headers, Record

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class AppendMeasures:
    """Appends by topic: how long until they were acknowledged, and those that were not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "postledger_append_seconds",
            "Seconds until an append was acknowledged",
            ["topic"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "postledger_append_failures_total",
            "Appends without acknowledgement",
            ["topic", "outcome"],
            registry=registry,
        )

    def appended(self, topic: str, seconds: float) -> None:
        self._seconds.labels(topic).observe(seconds)

    def failed(self, topic: str, *, definite: bool) -> None:
        self._failures.labels(topic, "refused" if definite else "unknown").inc()


class MeasuredCommandLog(CommandLog):
    """The command topics and `mail.raw`, measured."""

    def __init__(self, bootstrap: str, measures: AppendMeasures, *, prefix: str = "") -> None:
        super().__init__(bootstrap, prefix=prefix)
        self._measures = measures

    async def append(
        self, topic: str, key: str, value: bytes, headers: Headers, *, lapses: bool = True
    ) -> tuple[int, int]:
        began = perf_counter()
        try:
            place = await super().append(topic, key, value, headers, lapses=lapses)
        except Exception as error:
            self._measures.failed(topic, definite=isinstance(error, NotPromised))
            raise
        self._measures.appended(topic, perf_counter() - began)
        return place


class MeasuredEventLog(EventLog):
    """The truth topics, measured."""

    def __init__(self, bootstrap: str, measures: AppendMeasures, *, prefix: str = "") -> None:
        super().__init__(bootstrap, prefix=prefix)
        self._measures = measures

    async def append(self, topic: str, partition: int, batch: Batch, **more: Any) -> int:
        began = perf_counter()
        try:
            offset = await super().append(topic, partition, batch, **more)
        except Exception:
            self._measures.failed(topic, definite=False)
            raise
        self._measures.appended(topic, perf_counter() - began)
        return offset


class MeasuredDeadLetters(DeadLetters):
    """`dead.letters`, counted by where the record came from and why."""

    def __init__(self, command_log: CommandLog, registry: CollectorRegistry) -> None:
        super().__init__(command_log)
        self._kept = Counter(
            "postledger_dead_letters_total", "Records that could not be handled", ["topic", "cause"], registry=registry
        )

    async def keep(self, record: Record, *, cause: str) -> str:
        letter = await super().keep(record, cause=cause)
        self._kept.labels(record.topic, cause).inc()
        return letter
