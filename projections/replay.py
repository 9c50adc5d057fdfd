"""Rebuilding a read model from the log, beside the live one (DESIGN 4, rule 4).

The projection's own code folds the whole log into tables of the same names in a schema of their own. Then the live tables
and the rebuilt ones are compared row by row: in one repeatable-read transaction, which sees the live tables as they are at
exactly the checkpoints it reads, so that nobody has to wait for it. Last, holding the live checkpoints for a moment, it
folds what has come since up to exactly there and exchanges the tables. The checkpoints stay as they are.

What differed is told and is repaired by the exchange. Killed at any point it leaves the live tables as they were; the next
run throws away what it finds half done. Where there is nothing to compare with (a table is gone, or nothing was folded
yet) the read model is made from nothing, up to the end of the log, and its checkpoints move there.

An event that can't be applied ends the rebuild, unless an operator said to pass over it: then the rebuild begins again and
passes over all that operators said so of.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import asyncpg

from projections.checkpoint import move_up, of_projection
from projections.compare import NAMED, Difference, compare, shape
from projections.exchange import exchange
from projections.migrate import HEAD, version_of
from projections.projection import Connection, Folded, Projection
from projections.projector import INAPPLICABLE
from projections.reading import Reader, UnreadableEvent, skips
from schemas.envelope import Record
from schemas.vocabulary import Vocabulary

LIVE: Final = "read"
#: Seconds for which a log may look shorter than what was folded from it: a leader that has fallen behind looks short.
PATIENCE_SECONDS: Final = 30.0
#: Tries to exchange the tables while others use them; half a second each.
EXCHANGES: Final = 60

Progress = Callable[[int, int], None]


class CannotReplay(Exception):
    """The read model was not rebuilt and is as it was; the sentence says why."""


class ReadsLog(Protocol):
    """The truth topics, as `gateways/log/event_log.py` has them."""

    async def partitions(self, topic: str) -> list[int]: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    def read_on(
        self, topic: str, partition: int, position: int, *, floor: int = 0
    ) -> AsyncGenerator[list[Record], None]: ...


@dataclass(slots=True)
class Outcome:
    """What became of a rebuild: where it stands by partition, how many rows differed and the first of them.

    `from_nothing`: there was nothing to compare with; `missing`: because a table was not there.
    """

    positions: dict[int, int] = field(default_factory=dict)
    from_nothing: bool = False
    missing: bool = False
    count: int = 0
    differences: list[Difference] = field(default_factory=list)
    switched: bool = False


class _NotApplied(Exception):
    def __init__(self, partition: int, position: int) -> None:
        super().__init__(partition, position)
        self.partition, self.position = partition, position


class _SkipFound(Exception):
    """An operator said to pass over an event that may have been folded already."""


async def _assert_same_version(connection: "Connection[Any]") -> None:
    """Tables of another version's shape must not be put in place. Raises CannotReplay."""
    version = await version_of(connection)
    if version is None or version < HEAD:
        raise CannotReplay("The tables are of an older version: run `python main.py migrate` first.")
    if version > HEAD:
        raise CannotReplay("The tables are of a newer version: replay with that one.")


class Rebuild:
    """The rebuild of one projection; `run` may be called again after whatever it raised."""

    def __init__(self, projection: Projection, vocabulary: Vocabulary, log: ReadsLog, url: str) -> None:
        self.name = projection.name
        self._projection = projection
        self._schema = f"rebuild_{projection.name}"
        self._reader = Reader(vocabulary, [projection])
        self._log = log
        self._url = url
        self._positions: dict[int, int] = {}
        self._skipped: dict[int, set[int]] = {}
        self._progress: Progress = _silent
        self._total = 0

    async def run(self, *, switch: bool = True, progress: Progress | None = None) -> Outcome:
        """Rebuilds, compares, and with `switch` puts the rebuilt tables in place. `progress` hears records done and in all.

        Raises CannotReplay.
        """
        self._progress, self._skipped = progress or _silent, {}
        async with self._connected() as connection:
            await _assert_same_version(connection)
            while True:
                try:
                    return await self._rebuilt(connection, switch=switch)
                except _SkipFound:
                    await self._learn_skips()
                except _NotApplied as failed:
                    await self._learn_skips()
                    if failed.position not in self._skipped[failed.partition]:
                        raise CannotReplay(self._stuck(failed)) from failed
                finally:
                    if not connection.is_closed():
                        await connection.execute(f"drop schema if exists {self._schema} cascade")

    # ── the walk ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _rebuilt(self, connection: "Connection[Any]", *, switch: bool) -> Outcome:
        await self._create_tables(connection)
        live = await self._checkpoints(connection)
        missing = not await self._is_whole(connection)
        outcome = Outcome(from_nothing=missing or not any(live.values()), missing=missing)
        ends = {partition: await self._end(partition, live[partition]) for partition in live}
        targets = ends if outcome.from_nothing else live
        self._positions, self._total = dict.fromkeys(live, 0), sum(targets.values())
        await self._fold_up_to(connection, targets)
        if not outcome.from_nothing:
            await self._compare(connection, outcome)
        if switch:
            for table in self._projection.tables:
                await connection.execute(f"analyze {self._schema}.{table}")
            await self._exchange(connection, outcome)
        outcome.positions = dict(self._positions)
        return outcome

    async def _create_tables(self, connection: "Connection[Any]") -> None:
        await connection.execute(f"drop schema if exists {self._schema} cascade")
        await connection.execute(f"create schema {self._schema}")
        for statement in self._projection.statements:
            await connection.execute(statement)

    async def _checkpoints(self, connection: "Connection[Any]", *, hold: bool = False) -> dict[int, int]:
        there = await of_projection(connection, self.name, self._projection.topic, hold=hold)
        return dict.fromkeys(await self._log.partitions(self._projection.topic), 0) | there

    async def _is_whole(self, connection: "Connection[Any]") -> bool:
        return all([await shape(connection, LIVE, table) for table in self._projection.tables])

    async def _end(self, partition: int, least: int) -> int:
        """The end of the log, which is not below what was folded from it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            start, end = await self._log.bounds(self._projection.topic, partition)
            if start == 0 and end >= least:
                return end
            if start > 0 or asyncio.get_running_loop().time() > deadline:
                raise CannotReplay(
                    f"{self._projection.topic}/{partition} holds offsets {start} to {end}, but {self.name} was folded from "
                    f"0 to {least}: records are missing. Restore the Kafka data that belongs to this database."
                )
            await asyncio.sleep(1)

    async def _compare(self, connection: "Connection[Any]", outcome: Outcome) -> None:
        """At exactly the checkpoints that this transaction sees."""
        async with connection.transaction(isolation="repeatable_read"):
            await self._fold_up_to(connection, await self._checkpoints(connection))
            for table in self._projection.tables:
                count, differences = await compare(connection, table, live=LIVE, rebuilt=self._schema)
                outcome.count += count
                outcome.differences += differences
        del outcome.differences[NAMED:]

    async def _exchange(self, connection: "Connection[Any]", outcome: Outcome) -> None:
        reached = dict(self._positions)
        for _ in range(EXCHANGES):
            try:
                async with connection.transaction():
                    await self._catch_up(connection, from_nothing=outcome.from_nothing)
                    await exchange(connection, self._projection.tables, live=LIVE, rebuilt=self._schema)
            except asyncpg.LockNotAvailableError:
                self._positions = dict(reached)
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - spreads tries, hides nothing
            else:
                outcome.switched = True
                return
        raise CannotReplay(f"Somebody keeps the tables of {self.name} in use: end that transaction, then try again.")

    async def _catch_up(self, connection: "Connection[Any]", *, from_nothing: bool) -> None:
        """Holds the live checkpoints until the transaction ends, and folds up to exactly there."""
        await connection.execute("set local synchronous_commit = on")
        if from_nothing:
            # A row that isn't there can't be held.
            await move_up(connection, self.name, self._projection.topic, dict.fromkeys(self._positions, 0))
        live = await self._checkpoints(connection, hold=True)
        targets = {partition: max(position, self._positions.get(partition, 0)) for partition, position in live.items()}
        if targets != live and not from_nothing:
            raise CannotReplay(f"Somebody has set {self.name} back meanwhile: try again.")
        await self._fold_up_to(connection, targets)
        if from_nothing:
            await move_up(connection, self.name, self._projection.topic, self._positions)

    # ── folding ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fold_up_to(self, connection: "Connection[Any]", targets: dict[int, int]) -> None:
        for partition, target in targets.items():
            if self._positions.setdefault(partition, 0) < target:
                await self._fold_partition(connection, partition, target)

    async def _fold_partition(self, connection: "Connection[Any]", partition: int, target: int) -> None:
        """A batch is read and decoded while Postgres works on the one before it."""
        folding: asyncio.Task[None] | None = None
        begin = self._positions[partition]
        reading = self._log.read_on(self._projection.topic, partition, begin, floor=target)
        try:
            async with aclosing(reading) as batches:
                async for records in batches:
                    wanted = [record for record in records if record.offset < target]
                    events = self._events(partition, wanted)
                    if folding:
                        await folding
                    folding = asyncio.create_task(self._fold(connection, partition, events, wanted[-1].offset + 1))
                    if wanted[-1].offset + 1 == target:
                        break
            if folding:
                await folding
        finally:
            if folding and not folding.done():
                folding.cancel()
                await asyncio.gather(folding, return_exceptions=True)

    def _events(self, partition: int, records: list[Record]) -> list[Folded]:
        skipped = self._skipped.get(partition, set())
        if skips(records) - skipped:
            raise _SkipFound
        try:
            return self._reader.events(records, skipped=skipped)
        except UnreadableEvent as error:
            raise _NotApplied(partition, error.position) from error.__cause__

    async def _fold(self, connection: "Connection[Any]", partition: int, events: list[Folded], end: int) -> None:
        try:
            async with connection.transaction():
                await self._projection.fold(connection, events)
        except INAPPLICABLE:
            await self._fold_one_by_one(connection, events)
        self._positions[partition] = end
        self._progress(sum(self._positions.values()), self._total)

    async def _fold_one_by_one(self, connection: "Connection[Any]", events: list[Folded]) -> None:
        for seen in events:
            try:
                async with connection.transaction():
                    await self._projection.fold(connection, [seen])
            except INAPPLICABLE as error:
                raise _NotApplied(seen.partition, seen.position) from error

    async def _learn_skips(self) -> None:
        """Reads the whole log for what operators said to pass over."""
        for partition in self._positions:
            found: set[int] = set()
            async for records in self._log.read_on(self._projection.topic, partition, 0):
                found |= skips(records)
            self._skipped[partition] = found

    def _stuck(self, failed: _NotApplied) -> str:
        topic = self._projection.topic
        return (
            f"{self.name} can't apply the event at {topic}/{failed.partition}/{failed.position} "
            f"({type(failed.__cause__).__name__}). Run a version that can, or: "
            f"python main.py skip-event {topic} {failed.partition} {failed.position} --reason …"
        )

    # ── the connection ────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator["Connection[Any]"]:
        """One connection whose unqualified names are the rebuilt tables; only one rebuild of a projection at a time."""
        settings = {"search_path": self._schema, "application_name": "postledger replay", "jit": "off"}
        fast = {"synchronous_commit": "off", "work_mem": "64MB"}
        async with (
            asyncpg.create_pool(self._url, min_size=1, max_size=1, timeout=5, server_settings=settings | fast) as pool,
            pool.acquire() as connection,
        ):
            if not await connection.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", self._schema):
                raise CannotReplay(f"Another process is rebuilding {self.name}.")
            yield connection


def _silent(_done: int, _total: int) -> None:
    pass
