"""The projector's loop: folding events into tables, exactly once (DESIGN 4, rule 4).

One consumer serves all projections of a topic. A batch is folded in one Postgres transaction: the checkpoint of every
projection moves from where it was found to where it ends now (compare and set), and its rows change with it. Whoever finds
another checkpoint than he knows rolls back, reads where it is, and goes on from there: two projectors on one partition cost
work, never rows. Void records are skipped, and so are types that a newer writer has added; the new positions are announced
in the same transaction.

What failure means here: while Postgres can't be reached, the partition waits. An event that a projection can't apply is
narrowed down, so that everything before it is folded; after a few tries it stops its partition, loudly, and the other
partitions go on. A stopped partition still looks at what comes: where an operator has recorded that the event be passed
over (`log.event-skipped`), it goes on after it.

Tables may be exchanged for rebuilt ones at any time (see replay.py). Postgres then plans our prepared statements anew, by
the tables' names; where it can't, because columns have changed, asyncpg forgets them and the batch is folded again.

A projection takes part by naming itself: see `Projection`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import asyncpg

from projections.checkpoint import MovedError, advance, of_partition
from projections.projection import Projection
from projections.reading import Reader, skips
from schemas.envelope import Record
from schemas.vocabulary import Vocabulary

log = logging.getLogger(__name__)

#: Events folded in one transaction at the most.
BATCH: Final = 1000
#: Tries to apply an event before its partition is stopped, and seconds between them: 1, 2, 3, 4.
TRIES: Final = 5
PAUSE_SECONDS: Final = 1.0
#: What a fold raises on an event that it can't apply: trying again later will not help.
INAPPLICABLE: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.CardinalityViolationError,
    asyncpg.ProgramLimitExceededError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


class Seeks(Protocol):
    def seek(self, topic: str, partition: int, offset: int) -> bool: ...


@dataclass(slots=True)
class Place:
    """How far each projection has folded one partition; None while that isn't known.

    `stopped` is the position of the event that could not be applied, `skipped` those that are passed over.
    """

    positions: dict[str, int] | None = None
    stopped: int | None = None
    skipped: set[int] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Projector:
    """The loop of all projections of one topic, over the partitions this process owns at the moment."""

    def __init__(
        self,
        topic: str,
        projections: Sequence[Projection],
        vocabulary: Vocabulary,
        pool: "asyncpg.Pool[Any]",
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.topic = topic
        self.projections = list(projections)
        self._reader = Reader(vocabulary, projections)
        self.read = self._reader.read
        self._pool = pool
        self._pause_seconds = pause_seconds
        self.places: dict[int, Place] = {}
        self._finding: set[asyncio.Task[None]] = set()
        self.subscription: Seeks | None = None
        #: Called with the sentence when a partition has to stop.
        self.on_stopped: Callable[[str], None] = log.critical

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            self.places[partition] = Place()
            task = asyncio.create_task(self._find(partition))
            self._finding.add(task)
            task.add_done_callback(self._finding.discard)

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            self.places.pop(partition, None)

    async def take(self, records: Sequence[Record]) -> None:
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        await asyncio.gather(*[self._take(partition, found) for partition, found in by_partition.items()])

    async def stop(self) -> None:
        self.places.clear()
        for task in list(self._finding):
            task.cancel()
        await asyncio.gather(*self._finding, return_exceptions=True)

    @property
    def stopped(self) -> dict[int, int]:
        """The partitions that stand still, each with the position of the event that can't be applied."""
        return {number: place.stopped for number, place in self.places.items() if place.stopped is not None}

    # ── one partition ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, partition: int) -> None:
        """Reads where every projection is and goes there."""
        place, names = self.places.get(partition), [projection.name for projection in self.projections]
        if place is None:
            return
        async with place.lock:
            while place.positions is None and self.places.get(partition) is place:
                try:
                    place.positions = await of_partition(self._pool, names, self.topic, partition)
                    self._seek(partition, min(place.positions.values()))
                except Exception:
                    log.exception("projections wait for Postgres", extra={"topic": self.topic, "partition": partition})
                    await asyncio.sleep(0.3)

    async def _take(self, partition: int, records: list[Record]) -> None:
        start, size, tries = 0, BATCH, 0
        while start < len(records) and (place := self.places.get(partition)):
            if place.stopped is not None:
                self._look_for_skip(partition, place, records)
                return
            if place.positions is None:
                await self._find(partition)
                continue
            expected = min(place.positions.values())
            if records[-1].offset < expected:
                # A leader that has fallen behind knows no such offset, and the consumer then begins at the earliest.
                self._seek(partition, expected)
                return
            batch = records[start : start + size]
            try:
                async with place.lock:
                    await self._fold(partition, place, batch)
                start, size, tries = start + len(batch), min(size * 2, BATCH), 0
            except MovedError:
                place.positions = None
            except INAPPLICABLE as error:
                if len(batch) > 1:
                    size = len(batch) // 2
                else:
                    tries += 1
                    await self._not_applied(place, batch[0], tries, error)
            except Exception:
                log.exception("projections wait for Postgres", extra={"topic": self.topic, "partition": partition})
                place.positions = None
                await asyncio.sleep(0.3)

    async def _not_applied(self, place: Place, record: Record, tries: int, error: Exception) -> None:
        log.error("an event can't be applied", extra={"source": str(record.source), "cause": repr(error)})
        if tries < TRIES:
            await asyncio.sleep(self._pause_seconds * tries)
            return
        place.stopped = record.offset
        self.on_stopped(
            f"The event at {record.source} can't be applied: projections of this partition stand still. Run a version that "
            f"can apply it, or: python main.py skip-event {record.topic} {record.partition} {record.offset} --reason …"
        )

    def _look_for_skip(self, partition: int, place: Place, records: list[Record]) -> None:
        """Of a stopped partition: is there word that what stopped it be passed over?"""
        place.skipped |= skips(records)
        if place.stopped in place.skipped:
            log.warning("passing over an event", extra={"source": f"{self.topic}/{partition}/{place.stopped}"})
            self._seek(partition, place.stopped)
            place.stopped = None

    async def _fold(self, partition: int, place: Place, records: list[Record]) -> None:
        if place.positions is None:
            raise MovedError
        expected = min(place.positions.values())
        records = [record for record in records if record.offset >= expected]
        if not records:
            return
        if records[0].offset > expected or records[-1].offset - records[0].offset + 1 != len(records):
            self._seek(partition, expected)
            return
        end = records[-1].offset + 1
        events = self._reader.events(records, skipped=place.skipped)
        behind = {name: position for name, position in place.positions.items() if position < end}
        async with self._pool.acquire() as connection, connection.transaction():
            await advance(connection, self.topic, partition, behind, end)
            for projection in self.projections:
                if projection.name in behind:
                    position = behind[projection.name]
                    await projection.fold(connection, [seen for seen in events if seen.position >= position])
        place.positions |= dict.fromkeys(behind, end)

    def _seek(self, partition: int, offset: int) -> None:
        if self.subscription is not None:
            self.subscription.seek(self.topic, partition, offset)
