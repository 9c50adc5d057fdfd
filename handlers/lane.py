"""One partition of a decider: what waits to be decided, and how far the log has been read."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from handlers.documents import Documents
from schemas.envelope import Record
from schemas.snapshots import Checkpoint

log = logging.getLogger(__name__)

#: Records a lane may have waiting before its consumer is held back, and how many bytes their values may have.
QUEUE: Final = 1000
QUEUE_BYTES: Final = 33_554_432


class MovedError(Exception):
    """Somebody else wrote, or we don't know what became of our batch: read on and decide again."""


class LaneStoppedError(Exception):
    """The log or an input is not the one that was decided on: going on would mix two histories. Names the remedy."""


@dataclass(slots=True)
class Chunk:
    """Records of one topic that were fetched together; they are read beside the lane, until that succeeds."""

    topic: str
    records: list[Record]
    read: Callable[[Sequence[Record]], Awaitable[list[Any]]]
    reading: asyncio.Task[list[Any]] | None = None

    @property
    def size(self) -> int:
        """Bytes of its records' values."""
        return sum(len(record.value) for record in self.records)

    @property
    def ready(self) -> bool:
        return self.reading is not None and self.reading.done() and not self.reading.cancelled()

    @property
    def commands(self) -> list[Any]:
        """A command, or why it is none, for each record; only of a chunk that is ready."""
        assert self.reading is not None
        return self.reading.result()

    async def until_read(self) -> list[Any]:
        """What keeps us from reading (keyring, blob store) is waited for: nothing is skipped."""
        pause = 0.1
        while True:
            try:
                return await self.read(self.records)
            except Exception:
                log.exception("records wait to be read", extra={"topic": self.topic, "offset": self.records[0].offset})
                await asyncio.sleep(random.uniform(pause, pause * 2))  # noqa: S311 - spreads tries, hides nothing
                pause = min(pause * 2, 2)


@dataclass(slots=True)
class Lane:
    """`end` is where the log ends, None while that isn't known; `floor` is the highest offset known to be in it.

    `proven` is where everything stood when the log last showed that we had read all of it: after an adoption, or after a
    valid append. What was decided since and led to no event is in `next` only.
    """

    partition: int
    topics: list[str]
    documents: Documents
    end: int | None = None
    floor: int = 0
    next: dict[str, int] = field(default_factory=dict)
    now_ms: int = 0
    proven: Checkpoint = field(default_factory=Checkpoint)
    #: When (the event loop's clock) the first decision was made that `proven` does not have; None where there is none.
    unproven_since: float | None = None
    #: When the last marker was appended; None where events came after it.
    marked_at: float | None = None
    #: What keeps the lane from reading its log, as a sentence for operators; empty where nothing does.
    trouble: str = ""
    active: bool = True
    #: Whether it ends because its process does, and not because somebody else owns the partition now.
    last_words: bool = False
    task: asyncio.Task[None] | None = None
    saving: asyncio.Task[None] | None = None
    saved_at: float = 0.0
    #: When (the event loop's clock) the lane last got on, or began to have something to do.
    moved_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    fetched: dict[str, int] = field(default_factory=dict)
    queues: dict[str, deque[Chunk]] = field(default_factory=dict)
    work: asyncio.Event = field(default_factory=asyncio.Event)
    eased: asyncio.Event = field(default_factory=asyncio.Event)

    # ── what waits ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def full(self) -> bool:
        """Whether as much waits as should."""
        waiting = [chunk for queue in self.queues.values() for chunk in queue]
        records, size = sum(len(chunk.records) for chunk in waiting), sum(chunk.size for chunk in waiting)
        return self.active and (records > QUEUE or size > QUEUE_BYTES)

    @property
    def idle(self) -> bool:
        """Whether it knows the log and nothing waits."""
        return self.end is not None and not any(self.queues.values())

    def waiting_since(self, topic: str) -> int | None:
        """When (milliseconds, by the broker) the oldest record of a topic that waits here was appended."""
        queue = self.queues.get(topic)
        return queue[0].records[0].timestamp_ms if queue else None

    def got_on(self) -> None:
        self.moved_at = asyncio.get_running_loop().time()

    def hangs(self, seconds: float) -> bool:
        """Whether something has waited for so long without the lane getting on, or failing, at all."""
        return self.active and not self.idle and asyncio.get_running_loop().time() - self.moved_at > seconds

    def put(self, chunk: Chunk) -> None:
        if self.idle:
            self.got_on()
        chunk.reading = asyncio.create_task(chunk.until_read())
        chunk.reading.add_done_callback(lambda _: self.work.set())
        self.fetched[chunk.topic] = chunk.records[-1].offset + 1
        self.queues.setdefault(chunk.topic, deque()).append(chunk)

    async def next_chunks(self, most: int, seconds: float | None) -> list[Chunk]:
        """What has been read, preferred topics first, up to so many records; nothing after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self.active:
                    if chunks := self._ready_chunks(most):
                        return chunks
                    self.work.clear()
                    await self.work.wait()
        except TimeoutError:
            pass
        return []

    def _ready_chunks(self, most: int) -> list[Chunk]:
        """One topic's slow records hold up no other topic."""
        chunks: list[Chunk] = []
        for topic in self.topics:
            for chunk in self.queues.get(topic, ()):
                if not chunk.ready or (chunks and most < len(chunk.records)):
                    break
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
        self.eased.set()

    async def room(self) -> None:
        """Returns when there is room for more."""
        while self.full:
            self.eased.clear()
            await self.eased.wait()

    def out_of_line(self, topic: str) -> bool:
        """Whether what comes next on this topic, waiting or fetched, is not what is to be decided next."""
        position, queue = self.next.get(topic, 0), self.queues.get(topic)
        if queue:
            return queue[0].records[0].offset > position
        return self.fetched.get(topic) != position

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────────────

    def prove(self) -> None:
        """The log has shown that nothing stands before `end` but what we have read."""
        assert self.end is not None
        self.proven = Checkpoint(self.end, dict(self.next), self.now_ms)
        self.unproven_since = None

    def went_on(self, following: dict[str, int], now_ms: int) -> None:
        """Decisions were made from which nothing followed: they count in memory only, until the log has proven them."""
        self.next, self.now_ms = following, now_ms
        if self.unproven_since is None:
            self.unproven_since = asyncio.get_running_loop().time()

    def forget(self) -> None:
        """What the log says is no longer known; what waits stays in line."""
        self.end = None
        self.documents.clear()

    def set_aside(self, trouble: str) -> None:
        """Nothing of it can be decided for now: what waits would only take room from other partitions."""
        self.trouble = trouble
        self.forget()
        self.got_on()
        for topic in list(self.queues):
            self.drop(topic)
        self.fetched.clear()

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
