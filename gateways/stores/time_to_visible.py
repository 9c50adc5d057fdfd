"""How long an accepted mail takes until it can be read: from its place in `mail.raw` to its row, for Prometheus."""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Histogram

from schemas.envelope import Record

RECEIVED: Final = b"mailbox.message-received.v1"
#: Mails whose visibility is waited for at the most; others are not measured.
WAITING: Final = 10_000


class Tail(Protocol):
    def listen(self, tells: Callable[[Record, str], None]) -> Callable[[], None]: ...


class Positions(Protocol):
    def listen(self, tells: Callable[[tuple[str, str, int], int], None]) -> Callable[[], None]: ...


class TimeToVisible:
    """Listens to the tail for mails and to the projection for their rows. Clocks of broker and gateway are compared."""

    def __init__(self, tail: Tail, folded: Positions, registry: CollectorRegistry) -> None:
        self._waiting: dict[tuple[str, int], deque[tuple[int, float]]] = {}
        self._seconds = Histogram(
            "postledger_accept_to_visible_seconds",
            "Seconds from a mail's append to its row",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        tail.listen(self._told)
        folded.listen(self._folded)

    def _told(self, record: Record, _cause: str) -> None:
        if not any(name == "ce_type" and value == RECEIVED for name, value in record.headers):
            return
        said = next(value.decode() for name, value in record.headers if name == "ce_time")
        waiting = self._waiting.setdefault((record.topic, record.partition), deque(maxlen=WAITING))
        waiting.append((record.offset, datetime.fromisoformat(said).timestamp()))

    def _folded(self, place: tuple[str, str, int], position: int) -> None:
        name, topic, partition = place
        waiting = self._waiting.get((topic, partition)) if name == "messages" else None
        while waiting and waiting[0][0] < position:
            self._seconds.observe(max(0.0, time.time() - waiting.popleft()[1]))
