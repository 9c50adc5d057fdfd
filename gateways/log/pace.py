"""How a consumer fetches: at once while records come one by one, gathered by the broker while very many come.

Each delivery costs a fetch, then an append or a transaction, then another fetch of everybody who follows: under load half of
what a mail takes. To sleep between two deliveries would not help, since aiokafka has fetched the next few records by then; so
it is the broker that is asked to wait.
"""

import asyncio
import math
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

#: Records a second from which a consumer counts as busy, and milliseconds for which the broker then gathers.
BUSY_RECORDS: Final = 300
GATHER_MS: Final = 15
#: Milliseconds for which the broker waits for a first record otherwise.
WAIT_MS: Final = 500
#: Bytes with which the broker does not wait any longer.
GATHER_BYTES: Final = 1_048_576
#: Seconds in which what has come is forgotten (by a factor of e).
MEMORY_SECONDS: Final = 0.1


class Pace:
    """That of one consumer."""

    def __init__(self) -> None:
        self._at = 0.0
        self._recent = 0.0

    def keep(self, consumer: AIOKafkaConsumer | None, records: int) -> None:
        """Call it with each delivery. What counts is how many records came of late, each for less the longer ago it was."""
        now = asyncio.get_running_loop().time()
        self._recent = self._recent * math.exp((self._at - now) / MEMORY_SECONDS) + records
        self._at = now
        busy = self._recent > BUSY_RECORDS * MEMORY_SECONDS
        if consumer is not None:
            fetcher: Any = consumer._fetcher  # noqa: SLF001 - aiokafka 0.14 reads both at each fetch
            fetcher._fetch_min_bytes = GATHER_BYTES if busy else 1  # noqa: SLF001 - see above
            fetcher._fetch_max_wait_ms = GATHER_MS if busy else WAIT_MS  # noqa: SLF001 - see above
