"""One partition of a decider: what waits to be decided, and how far the log has been read."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from handlers.documents import Documents
from schemas.envelope import Record
from schemas.snapshots import Checkpoint

log = logging.getLogger(__name__)

#: Records of one topic that a lane may have waiting before no more of it is fetched, and the bytes their values may have.
QUEUE: Final = 1000
QUEUE_BYTES: Final = 16_777_216
#: Records read together at the most. Quick parsing may take a quarter of a second for each, and none of a chunk can be
#: decided before all of it is read.
CHUNK: Final = 20
#: Records of one topic that a lane has read at the same time: enough for parsers to be busy, and few enough for those that
#: come first to be ready first, for other lanes to get their turn, and for an outage not to be met by all that wait.
READ_AHEAD: Final = 80


class MovedError(Exception):
    """Somebody else wrote, or we don't know what became of our batch: read on and decide again."""


class LaneStoppedError(Exception):
    """The log or an input is not the one that was decided on: going on would mix two histories. Names the remedy."""


class Feeds(Protocol):
    """The consumer behind a decider; each answers False where the partition isn't ours (any more)."""

    def seek(self, topic: str, partition: int, offset: int) -> bool: ...

    def pause(self, topic: str, partition: int) -> bool: ...

    def resume(self, topic: str, partition: int) -> bool: ...


Reads = Callable[[Sequence[Record]], Awaitable[list[Any]]]


@dataclass(slots=True)
class Chunk:
    """Records of one topic that were fetched together; they are read beside the lane, until that succeeds."""

    topic: str
    records: list[Record]
    read: Reads
    reading: asyncio.Task[list[Any]] | None = None
    #: Bytes of its records' values.
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(record.value) for record in self.records)

    @property
    def being_read(self) -> bool:
        return self.reading is not None and not self.reading.done()

    @property
    def ready(self) -> bool:
        return self.reading is not None and self.reading.done() and not self.reading.cancelled()

    @property
    def commands(self) -> list[Any]:
        """A command, or why it is none, for each record, None where it was decided already; only of a chunk that is ready."""
        assert self.reading is not None
        return self.reading.result()

    async def until_read(self, proven: Callable[[], int]) -> list[Any]:
        """What keeps us from reading (keyring, blob store) is waited for, and nothing is skipped that is to be decided.

        Of what stands before `proven` the outcome is in the log: its content may be gone for good by now.
        """
        pause = 0.1
        while True:
            try:
                undecided = [record for record in self.records if record.offset >= proven()]
                commands = await self.read(undecided) if undecided else []
                return [None] * (len(self.records) - len(undecided)) + commands
            except Exception:
                log.exception("records wait to be read", extra={"topic": self.topic, "offset": self.records[0].offset})
                await asyncio.sleep(random.uniform(pause, pause * 2))  # noqa: S311 - spreads tries, hides nothing
                pause = min(pause * 2, 2)


def _nobody(*_: Any) -> None:
    pass


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
    #: Called whenever records that waited have been read.
    on_read: Callable[[], None] = _nobody
    #: Called with a topic of which less waits than before.
    on_eased: Callable[[str], None] = _nobody

    # ── what waits ────────────────────────────────────────────────────────────────────────────────────────────────────

    def full(self, topic: str) -> bool:
        """Whether as much of this topic waits as should."""
        records, size = self._waiting(topic)
        return self.active and (records > QUEUE or size > QUEUE_BYTES)

    def has_eased(self, topic: str) -> bool:
        """Whether more of this topic should be fetched: neither for each record decided, nor only when it has run dry."""
        records, size = self._waiting(topic)
        return records <= QUEUE // 2 and size <= QUEUE_BYTES // 2

    def _waiting(self, topic: str) -> tuple[int, int]:
        """How many records of this topic wait, and the bytes of their values."""
        queue = self.queues.get(topic, ())
        return sum(len(chunk.records) for chunk in queue), sum(chunk.size for chunk in queue)

    @property
    def idle(self) -> bool:
        """Whether it knows the log and nothing waits."""
        return self.end is not None and not any(self.queues.values())

    @property
    def waits_for_reading(self) -> bool:
        """Whether it knows the log and something waits, but none of it could be decided yet."""
        heads = [queue[0] for queue in self.queues.values() if queue]
        return self.end is not None and bool(heads) and not any(chunk.ready for chunk in heads)

    def waiting_since(self, topic: str) -> int | None:
        """When (milliseconds, by the broker) the oldest record of a topic that waits here was appended."""
        queue = self.queues.get(topic)
        return queue[0].records[0].timestamp_ms if queue else None

    def got_on(self) -> None:
        self.moved_at = asyncio.get_running_loop().time()

    def hangs(self, seconds: float) -> bool:
        """Whether something has waited for so long without the lane getting on, or failing, at all."""
        return self.active and not self.idle and asyncio.get_running_loop().time() - self.moved_at > seconds

    def put(self, topic: str, records: list[Record], read: Reads) -> None:
        """Puts records of one topic, which follow each other, in line."""
        if self.idle:
            self.got_on()
        chunks = [Chunk(topic, records[start : start + CHUNK], read) for start in range(0, len(records), CHUNK)]
        self.fetched[topic] = records[-1].offset + 1
        self.queues.setdefault(topic, deque()).extend(chunks)
        self._read_on(topic)

    def _read_on(self, topic: str) -> None:
        """Has chunks read in their order, a few at a time."""
        queue = self.queues.get(topic, ())
        room = READ_AHEAD - sum(len(chunk.records) for chunk in queue if chunk.being_read)
        for chunk in queue:
            if room <= 0:
                return
            if chunk.reading is None:
                chunk.reading = asyncio.create_task(chunk.until_read(lambda: self.proven.inputs.get(topic, 0)))
                chunk.reading.add_done_callback(partial(self._has_read, topic))
                room -= len(chunk.records)

    def _has_read(self, topic: str, reading: asyncio.Task[list[Any]]) -> None:
        self._read_on(topic)
        if not reading.cancelled():
            self.on_read()
        self.work.set()

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
        for topic in {chunk.topic for chunk in chunks}:
            self.on_eased(topic)

    def drop(self, topic: str) -> None:
        """Lets go of what waits on this topic: it will be fetched again."""
        for chunk in self.queues.pop(topic, ()):
            if chunk.reading:
                chunk.reading.cancel()
        self.on_eased(topic)

    def out_of_line(self, topic: str) -> bool:
        """Whether what comes next on this topic, waiting or fetched, is not what is to be decided next.

        What waits may all have been decided already: there may be a whole topic of it.
        """
        position, queue = self.next.get(topic, 0), self.queues.get(topic)
        if queue and self.fetched.get(topic, 0) >= position:
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

    def snapshot_due(self, seconds: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self.saved_at < seconds or (self.saving and not self.saving.done()):
            return False
        self.saved_at = now
        return True
