"""How far each projection and effect is behind the log, in records and in seconds, for Prometheus.

Seconds are those since this process saw the first record that is not folded yet. It remembers when the log ended where, ten
times a second at the most and for ten minutes; what has waited for longer shows as that long.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateways.log.tail import Tail
from gateways.stores.folded import FoldedPositions
from schemas.envelope import Record

#: Seconds between two remembered ends of a partition, and how many are remembered.
STEP_SECONDS: Final = 0.1
REMEMBERED: Final = 6000


class Seen:
    """When this process saw a partition grow: (offset of a record, when)."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)

    def saw(self, offset: int, at: float) -> None:
        if not self._seen or at - self._seen[-1][1] >= STEP_SECONDS:
            self._seen.append((offset, at))

    def since(self, offset: int) -> float | None:
        """When the record at this offset was seen, or up to a step earlier; None where that was before anything seen here."""
        found = bisect_right(self._seen, (offset, float("inf")))
        return self._seen[found - 1][1] if found else None

    @property
    def earliest(self) -> float:
        return self._seen[0][1] if self._seen else monotonic()


class ProjectionLag(Collector):
    """Asks the tail and the positions when Prometheus asks. Without a tail only positions are known."""

    def __init__(self, folded: FoldedPositions, tail: Tail | None) -> None:
        self._folded = folded
        self._tail = tail
        self._seen: dict[tuple[str, int], Seen] = {}
        if tail is not None:
            tail.listen(self._saw)

    def _saw(self, record: Record, _cause: str) -> None:
        seen = self._seen.get((record.topic, record.partition))
        if seen is None:
            seen = self._seen[record.topic, record.partition] = Seen()
        seen.saw(record.offset, monotonic())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["projection", "topic", "partition"]
        position = GaugeMetricFamily(
            "postledger_projection_position",
            "Next offset a projection folds, in the whole installation",
            labels=labels,
        )
        records = GaugeMetricFamily(
            "postledger_projection_lag_records",
            "Records not folded yet in the whole installation",
            labels=labels,
        )
        seconds = GaugeMetricFamily(
            "postledger_projection_lag_seconds",
            "Seconds that the oldest record not folded yet in the whole installation has waited",
            labels=labels,
        )
        for (projection, topic, partition), at in sorted(self._folded.positions.items()):
            named = [projection, topic, str(partition)]
            position.add_metric(named, at)
            if self._tail is not None:
                end = self._tail.position(topic, partition)
                records.add_metric(named, max(0, end - at))
                seconds.add_metric(named, self._seconds(topic, partition, at) if at < end else 0.0)
        yield position
        yield records
        yield seconds

    def _seconds(self, topic: str, partition: int, at: int) -> float:
        seen = self._seen.get((topic, partition))
        if seen is None:
            return 0.0
        since = seen.since(at)
        return monotonic() - (seen.earliest if since is None else since)
