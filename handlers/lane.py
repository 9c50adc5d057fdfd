"""One partition of a decider: what waits to be decided, and how far the log has been read."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlers.documents import Documents
from schemas.envelope import Record


@dataclass(slots=True)
class Chunk:
    """Records of one topic that were fetched together; reading them begins at once, beside the lane's current step."""

    topic: str
    records: list[Record]
    read: Callable[[Sequence[Record]], Awaitable[list[Any]]]
    reading: asyncio.Task[list[Any]] | None = None

    def begin(self) -> None:
        self.reading = asyncio.ensure_future(self.read(self.records))

    async def commands(self) -> list[Any]:
        """A command, or why it is none, for each record; raises what kept us from reading: try again."""
        if self.reading is None or (self.reading.done() and self.reading.exception()):
            self.begin()
        assert self.reading is not None
        return await self.reading


@dataclass(slots=True)
class Lane:
    """`end` is where the log ends, None while that isn't known; `floor` is the highest offset known to be in it."""

    partition: int
    topics: list[str]
    documents: Documents
    end: int | None = None
    floor: int = 0
    next: dict[str, int] = field(default_factory=dict)
    now_ms: int = 0
    must_seek: bool = True
    active: bool = True
    task: asyncio.Task[None] | None = None
    saving: asyncio.Task[None] | None = None
    saved_at: float = 0.0
    queues: dict[str, deque[Chunk]] = field(default_factory=dict)
    work: asyncio.Event = field(default_factory=asyncio.Event)
    eased: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """Records that wait to be decided."""
        return sum(len(chunk.records) for queue in self.queues.values() for chunk in queue) if self.active else 0

    def put(self, chunk: Chunk) -> None:
        chunk.begin()
        self.queues.setdefault(chunk.topic, deque()).append(chunk)
        self.work.set()

    async def next_chunks(self, most: int, seconds: float | None) -> list[Chunk]:
        """What waits, preferred topics first, up to so many records; nothing after so many seconds or when the lane ends."""
        try:
            async with asyncio.timeout(seconds):
                while self.active:
                    if chunks := self._waiting_chunks(most):
                        return chunks
                    self.work.clear()
                    await self.work.wait()
        except TimeoutError:
            pass
        return []

    def _waiting_chunks(self, most: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for topic in self.topics:
            for chunk in self.queues.get(topic, ()):
                if chunks and most < len(chunk.records):
                    return chunks
                chunks.append(chunk)
                most -= len(chunk.records)
        return chunks

    def done(self, chunks: list[Chunk]) -> None:
        """Takes decided chunks out of line."""
        for chunk in chunks:
            queue = self.queues.get(chunk.topic)
            if queue and queue[0] is chunk:
                queue.popleft()
        self.eased.set()

    def drop(self, topic: str) -> None:
        """Lets go of what waits on this topic: it will be fetched again."""
        for chunk in self.queues.pop(topic, ()):
            if chunk.reading:
                chunk.reading.cancel()

    async def less(self, than: int) -> None:
        """Returns when no more than so many records wait."""
        while self.active and self.waiting > than:
            self.eased.clear()
            await self.eased.wait()

    def forget(self) -> None:
        """What the log says is no longer known; what waits stays in line."""
        self.end = None
        self.documents.clear()

    def retire(self) -> None:
        self.active = False
        for topic in list(self.queues):
            self.drop(topic)
        self.work.set()
        self.eased.set()

    def snapshot_due(self, seconds: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self.saved_at < seconds or (self.saving and not self.saving.done()):
            return False
        self.saved_at = now
        return True
