"""Whether a projection keeps up with the log: what is more than ten seconds behind may not answer look-ups."""

import asyncio
from collections import deque
from typing import Final, Protocol

#: Seconds a projection may be behind what was told of the log.
PATIENCE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.5


class Tail(Protocol):
    @property
    def partitions(self) -> list[tuple[str, int]]: ...

    def position(self, topic: str, partition: int) -> int: ...


class Positions(Protocol):
    @property
    def positions(self) -> dict[tuple[str, str, int], int]: ...


class Freshness:
    """Compares where the log was with how far a projection is now."""

    def __init__(self, projection: str, topic: str, tail: Tail, folded: Positions) -> None:
        self._projection = projection
        self._topic = topic
        self._tail = tail
        self._folded = folded
        self._behind: dict[int, deque[tuple[float, int]]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="freshness")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def seconds_behind(self) -> float:
        """How long ago the log was where the projection is not yet; 0 where it has caught up."""
        now = asyncio.get_running_loop().time()
        return max((now - waiting[0][0] for waiting in self._behind.values() if waiting), default=0.0)

    def __call__(self) -> bool:
        """Whether the projection may answer."""
        return self.seconds_behind < PATIENCE_SECONDS

    async def _watch(self) -> None:
        while True:
            for topic, partition in self._tail.partitions:
                if topic == self._topic:
                    self._look(partition)
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, partition: int) -> None:
        waiting = self._behind.setdefault(partition, deque())
        told = self._tail.position(self._topic, partition)
        folded = self._folded.positions.get((self._projection, self._topic, partition), 0)
        if not waiting or waiting[-1][1] < told:
            waiting.append((asyncio.get_running_loop().time(), told))
        while waiting and waiting[0][1] <= folded:
            waiting.popleft()
