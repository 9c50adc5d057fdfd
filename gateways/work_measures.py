"""How the loops are doing, for Prometheus: what was decided, how far they are behind, and which timers are due.

The loops know nothing of this; what they show anyway is looked at when Prometheus asks.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import time
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateways.stores.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

#: Seconds between looks at the timers.
LOOK_SECONDS: Final = 5.0
DUE: Final = "select count(*), coalesce(extract(epoch from now() - min(due)), 0) from timers where due <= now()"


class Lane(Protocol):
    """One partition of a decider, as far as it is looked at here."""

    @property
    def next(self) -> Mapping[str, int]: ...

    def waiting_since(self, topic: str) -> int | None:
        """When (milliseconds, by the broker) the oldest record was appended that waits here to be decided."""


class Ends(Protocol):
    def end(self, topic: str, partition: int) -> int | None:
        """Where the partition ended when it was last fetched from."""


class Lanes(Protocol):
    """A decider, as far as it is looked at here."""

    on_decided: Callable[[str, Any], None]

    @property
    def topics(self) -> Sequence[str]: ...
    @property
    def lanes(self) -> Mapping[int, Lane]: ...


class Stops(Protocol):
    """A projector, as far as it is looked at here."""

    @property
    def topic(self) -> str: ...
    @property
    def stopped(self) -> Mapping[int, int]: ...


class DecisionMeasures(Collector):
    """Commands decided by what followed, and how far each decider is behind on the partitions that are this process's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decided = Counter(
            "postledger_commands_decided_total",
            "Commands whose outcome is in the log",
            ["context", "outcome", "reason"],
            registry=registry,
        )
        self._deciders: dict[str, tuple[Lanes, Ends]] = {}
        registry.register(self)

    def watch(self, context: str, decider: Lanes, ends: Ends) -> None:
        """Counts what this decider decides from now on, and looks how far it is behind."""
        decider.on_decided = self.decided
        self._deciders[context] = (decider, ends)

    def decided(self, context: str, event: Any) -> None:
        """`event` is the first that followed from a command, None where none did."""
        outcome = "nothing" if event is None else type(event).__name__
        reason = getattr(event, "reason", None) or getattr(event, "cause", None) or ""
        self._decided.labels(context, outcome, reason).inc()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["context", "topic", "partition"]
        records = GaugeMetricFamily("postledger_decider_lag_records", "Records not decided yet", labels=labels)
        seconds = GaugeMetricFamily(
            "postledger_decider_lag_seconds", "Seconds that the oldest record has waited", labels=labels
        )
        for context, (decider, ends) in self._deciders.items():
            for partition, lane in decider.lanes.items():
                for topic in decider.topics:
                    named = [context, topic, str(partition)]
                    end, since = ends.end(topic, partition), lane.waiting_since(topic)
                    records.add_metric(named, max(0, (end or 0) - lane.next.get(topic, 0)))
                    seconds.add_metric(named, 0.0 if since is None else max(0.0, time() - since / 1000))
        yield records
        yield seconds


class StoppedProjections(Collector):
    """Partitions that stand still because of an event that can't be applied."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._projectors: list[Stops] = []
        registry.register(self)

    def watch(self, projector: Stops) -> None:
        self._projectors.append(projector)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        stopped = GaugeMetricFamily(
            "postledger_projections_stopped", "Partitions that an event has stopped", labels=["topic"]
        )
        for projector in self._projectors:
            stopped.add_metric([projector.topic], len(projector.stopped))
        yield stopped


class TimerMeasures:
    """How many timers are due and nothing has followed from them yet, looked up every few seconds."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._due = Gauge(
            "postledger_timers_due", "Timers of the whole installation whose time has come", registry=registry
        )
        self._overdue = Gauge(
            "postledger_timers_overdue_seconds",
            "Seconds since the time of the oldest due timer in the whole installation",
            registry=registry,
        )

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres is waited for."""
        while True:
            try:
                due, seconds = await self._pool.fetchrow(DUE)
                self._due.set(due)
                self._overdue.set(float(seconds))
            except UNREACHABLE as error:
                log.warning("timers can't be counted", extra={"cause": repr(error)})
            await asyncio.sleep(LOOK_SECONDS)
