"""The projector's loop: folding events into tables, exactly once (DESIGN 4, rule 4).

One consumer serves all projections of a topic. A batch is folded in one Postgres transaction: the checkpoint of every
projection moves from where it was found to where it ends now (compare and set), and its rows change with it. Whoever finds
another checkpoint than he knows rolls back, reads where it is, and goes on from there: two projectors on one partition cost
work, never rows. Void records are skipped, and the new positions are announced in the same transaction.

What failure means here: while Postgres can't be reached, the partition waits. An event that a projection can't apply stops
its partition after a few tries, loudly; the others go on.

A projection takes part by naming itself: see `Projection`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import asyncpg

from schemas.envelope import Record, first
from schemas.topics import FOLDED_CHANNEL
from schemas.vocabulary import Vocabulary

log = logging.getLogger(__name__)

#: Events folded in one transaction at the most.
BATCH: Final = 1000
#: Tries to apply a batch before its partition is stopped.
TRIES: Final = 5
#: What a fold raises on an event that it can't apply: trying again later will not help.
INAPPLICABLE: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class Folded:
    """An event as projections see it: where it stands, what caused it, and what it says."""

    topic: str
    partition: int
    position: int
    at: datetime
    kind: str
    subject: str
    key: str
    causation: str
    event: Any


Connection = asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True)
class Projection:
    """A read model: its permanent name, the topic it folds, its tables, and how events change them.

    `folds` are run in this order for each batch, each with all events of its types. So the order must be that of a life:
    what creates a row first, what changes it next, what ends it last; an id is never used again after its end.
    """

    name: str
    topic: str
    tables: Sequence[str]
    ddl: str
    folds: Mapping[tuple[type, ...], Callable[["Connection[Any]", list[Folded]], Awaitable[None]]]

    async def fold(self, connection: "Connection[Any]", events: list[Folded]) -> None:
        for types, fold in self.folds.items():
            if of_types := [seen for seen in events if isinstance(seen.event, types)]:
                await fold(connection, of_types)


class Seeks(Protocol):
    def seek(self, topic: str, partition: int, offset: int) -> bool: ...


class MovedError(Exception):
    """A checkpoint is not where we left it: somebody else folds this partition too."""


@dataclass(slots=True)
class Place:
    """How far each projection has folded one partition; None while that isn't known."""

    positions: dict[str, int] | None = None
    stopped: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Projector:
    """The loop of all projections of one topic, over the partitions this process owns at the moment."""

    def __init__(
        self, topic: str, projections: Sequence[Projection], vocabulary: Vocabulary, pool: "asyncpg.Pool[Any]"
    ) -> None:
        self.topic = topic
        self.projections = list(projections)
        self._vocabulary = vocabulary
        self._pool = pool
        self.places: dict[int, Place] = {}
        self._finding: set[asyncio.Task[None]] = set()
        self.subscription: Seeks | None = None

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

    # ── one partition ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, partition: int) -> None:
        """Reads where every projection is and goes there."""
        place = self.places.get(partition)
        if place is None:
            return
        async with place.lock:
            while place.positions is None and self.places.get(partition) is place:
                try:
                    place.positions = await self._checkpoints(partition)
                    self._seek(partition, min(place.positions.values()))
                except Exception:
                    log.exception("projections wait for Postgres", extra={"topic": self.topic, "partition": partition})
                    await asyncio.sleep(0.3)

    async def _checkpoints(self, partition: int) -> dict[str, int]:
        names = [projection.name for projection in self.projections]
        await self._pool.execute(
            "insert into checkpoints (name, topic, partition, position) "
            "select name, $2, $3, 0 from unnest($1::text[]) as n(name) on conflict do nothing",
            names,
            self.topic,
            partition,
        )
        rows = await self._pool.fetch(
            "select name, position from checkpoints where name = any($1) and topic = $2 and partition = $3",
            names,
            self.topic,
            partition,
        )
        return {row["name"]: row["position"] for row in rows}

    async def _take(self, partition: int, records: list[Record]) -> None:
        for start in range(0, len(records), BATCH):
            tries = 0
            while (place := self.places.get(partition)) and not place.stopped:
                if place.positions is None:
                    await self._find(partition)
                try:
                    async with place.lock:
                        await self._fold(partition, place, records[start : start + BATCH])
                    break
                except MovedError:
                    place.positions = None
                except (
                    asyncpg.DataError,
                    asyncpg.IntegrityConstraintViolationError,
                    ValueError,
                    KeyError,
                    TypeError,
                ) as error:
                    tries += 1
                    log.exception("an event can't be applied", extra={"topic": self.topic, "partition": partition})
                    place.positions = None
                    if tries >= TRIES:
                        place.stopped = repr(error)
                        log.critical("projection stopped", extra={"topic": self.topic, "partition": partition})
                    await asyncio.sleep(0.2 * tries)
                except Exception:
                    log.exception("projections wait for Postgres", extra={"topic": self.topic, "partition": partition})
                    place.positions = None
                    await asyncio.sleep(0.3)

    async def _fold(self, partition: int, place: Place, records: list[Record]) -> None:
        assert place.positions is not None
        expected = min(place.positions.values())
        records = [record for record in records if record.offset >= expected]
        if not records:
            return
        if records[0].offset > expected or records[-1].offset - records[0].offset + 1 != len(records):
            self._seek(partition, expected)
            return
        end = records[-1].offset + 1
        events = [self.read(record) for record in records if not record.void]
        behind = {name: position for name, position in place.positions.items() if position < end}
        async with self._pool.acquire() as connection, connection.transaction():
            await self._advance(connection, partition, behind, end)
            for projection in self.projections:
                if projection.name in behind:
                    position = behind[projection.name]
                    await projection.fold(connection, [seen for seen in events if seen.position >= position])
        place.positions |= dict.fromkeys(behind, end)

    async def _advance(
        self, connection: "Connection[Any]", partition: int, behind: Mapping[str, int], end: int
    ) -> None:
        moved = await connection.fetchval(
            "with moved as (update checkpoints c set position = $4, at = now() "
            "from unnest($1::text[], $5::bigint[]) as w(name, position) "
            "where c.name = w.name and c.topic = $2 and c.partition = $3 and c.position = w.position returning c.name) "
            "select count(*), pg_notify($6, $2 || ' ' || $3 || ' ' || $4 || ' ' || array_to_string($1, ',')) from moved",
            list(behind),
            self.topic,
            partition,
            end,
            list(behind.values()),
            FOLDED_CHANNEL,
        )
        if moved != len(behind):
            raise MovedError

    def read(self, record: Record) -> Folded:
        """A valid record as projections see it."""
        headers = first(record.headers)
        return Folded(
            record.topic,
            record.partition,
            record.offset,
            datetime.fromisoformat(headers["ce_time"]),
            headers["ce_type"],
            headers["ce_subject"],
            record.key,
            headers.get("causationid", ""),
            self._vocabulary.decode(headers["ce_type"], record.value),
        )

    def _seek(self, partition: int, offset: int) -> None:
        if self.subscription is not None:
            self.subscription.seek(self.topic, partition, offset)


def columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows turned into the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]


def last_of_each(events: list[Folded], name: Callable[[Any], str]) -> list[Folded]:
    """For each id the last event that names it: an UPDATE must not meet a row twice."""
    return list({name(seen.event): seen for seen in events}.values())
