"""Lets deliveries wait for their time: one loop for each retry tier.

All that stands in a tier waits equally long there, so the first in line is the first that may go on, and the loop looks at
nothing else: it pauses the partition, goes back to that record, and resumes when its time has come. Nothing sleeps on a
record, and whatever this process forgets stands in the topic still. What is due then goes to `webhook.deliver`, what is not
to the tier that fits the time left; a wait that is longer than the longest tier goes round it again.

The last tier takes whatever is left, which may be less than its length. What comes behind something there can be late by that
length, and no more.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from handlers.effector import Positions
from handlers.webhook_queue import Queue
from schemas.envelope import Record, first, moment
from schemas.topics import WEBHOOK_RETRY
from schemas.webhook_queue import QUEUE, Attempt

log = logging.getLogger(__name__)

#: Seconds between tries where the log or Postgres does not answer.
PAUSE_SECONDS: Final = 0.5
#: Records that are moved on at the same time.
AT_ONCE: Final = 64
#: Times that a gap is seen before what was there counts as no longer kept.
GAPS: Final = 3


class Feeds(Protocol):
    def seek(self, topic: str, partition: int, offset: int) -> bool: ...

    def pause(self, topic: str, partition: int) -> bool: ...

    def resume(self, topic: str, partition: int) -> bool: ...


class Tier:
    """The loop of one tier, whose records wait for so many seconds, over the partitions this process owns at the moment."""

    def __init__(self, seconds: int, queue: Queue, positions: Positions) -> None:
        self.topic = WEBHOOK_RETRY[seconds].name
        self._length = queue.length(seconds)
        self._is_last = seconds == min(WEBHOOK_RETRY)
        self._queue = queue
        self._positions = positions
        #: The next offset of each partition; None while that isn't known.
        self._places: dict[int, int | None] = {}
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        #: How often in a row a partition has begun after its place.
        self._gaps: dict[int, int] = {}
        self._finding: set[asyncio.Task[None]] = set()
        self.subscription: Feeds | None = None

    @property
    def name(self) -> str:
        return f"tier.{self.topic}"

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            self._places[partition] = None
            task = asyncio.create_task(self._find(partition))
            self._finding.add(task)
            task.add_done_callback(self._finding.discard)

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            self._places.pop(partition, None)
            self._wake_no_more(partition)

    async def stop(self) -> None:
        self._places.clear()
        for partition in list(self._waiting):
            self._wake_no_more(partition)
        for task in list(self._finding):
            task.cancel()
        await asyncio.gather(*self._finding, return_exceptions=True)

    async def take(self, records: Sequence[Record]) -> None:
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        await asyncio.gather(*[self._take(partition, found) for partition, found in by_partition.items()])

    # ── one partition ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, partition: int) -> None:
        while partition in self._places:
            try:
                place = await self._positions.position(self.name, self.topic, partition)
            except Exception:
                log.exception("a tier waits for its position", extra={"tier": self.topic})
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if partition in self._places:
                self._places[partition] = place
                self._seek(partition, place)
            return

    async def _take(self, partition: int, records: list[Record]) -> None:
        place = self._places.get(partition)
        if place is None or partition in self._waiting:
            return
        if records[-1].offset < place or self._is_astray(partition, records[0].offset, place):
            self._seek(partition, place)  # a leader that has fallen behind, or what was fetched before we went there
            return
        todo = [record for record in records if record.offset >= place]
        ready: list[Record] = []
        for record in todo:
            if (left := self._left(record)) > timedelta(0):
                self._wait(partition, record.offset, left)
                break
            ready.append(record)
        for start in range(0, len(ready), AT_ONCE):
            await self._move_on(partition, ready[start : start + AT_ONCE])

    def _is_astray(self, partition: int, offset: int, place: int) -> bool:
        """Whether there is a gap before this record. What is no longer kept leaves one, seen again and again."""
        if offset <= place:
            self._gaps.pop(partition, None)
            return False
        self._gaps[partition] = self._gaps.get(partition, 0) + 1
        return self._gaps[partition] < GAPS

    async def _move_on(self, partition: int, records: list[Record]) -> None:
        """What is moved twice is tried twice at the most, and reported once."""
        while partition in self._places:
            try:
                await asyncio.gather(*[self._move(record) for record in records])
                await self._positions.advance(self.name, self.topic, partition, records[-1].offset + 1)
            except Exception:
                log.exception("a tier waits", extra={"tier": self.topic, "offset": records[0].offset})
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                if partition in self._places:
                    self._places[partition] = records[-1].offset + 1
                return

    async def _move(self, record: Record) -> None:
        work = _attempt(record)
        if work is not None:
            topic = self._queue.tier(work.due - datetime.now(UTC))
            await self._queue.move(topic, record.key, record.value, record.headers)

    def _left(self, record: Record) -> timedelta:
        """For how long it still waits here."""
        passed = moment(record.timestamp_ms) + self._length
        work = _attempt(record)
        if work is None:
            return timedelta(0)
        return (min(passed, work.due) if self._is_last else passed) - datetime.now(UTC)

    # ── pausing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, partition: int, offset: int, left: timedelta) -> None:
        if self.subscription is not None:
            self.subscription.pause(self.topic, partition)
            self.subscription.seek(self.topic, partition, offset)
        loop = asyncio.get_running_loop()
        self._waiting[partition] = loop.call_later(left.total_seconds(), self._wake, partition)

    def _wake(self, partition: int) -> None:
        self._waiting.pop(partition, None)
        if self.subscription is not None:
            self.subscription.resume(self.topic, partition)

    def _wake_no_more(self, partition: int) -> None:
        if handle := self._waiting.pop(partition, None):
            handle.cancel()

    def _seek(self, partition: int, offset: int) -> None:
        if self.subscription is not None:
            self.subscription.seek(self.topic, partition, offset)


def _attempt(record: Record) -> Attempt | None:
    """None for what is no attempt: nobody writes here but we, and a later version may write otherwise."""
    try:
        found: Attempt = QUEUE.decode(first(record.headers).get("ce_type", ""), record.value)
    except ValueError:
        log.error("a record of a tier can't be read", extra={"source": str(record.source)})
        return None
    return found
