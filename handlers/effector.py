"""The effector's loop: events in, one thing done in the world for each (DESIGN 4, rule 5).

Many events are in flight, in lanes by key: what one key asks for is done in its order, and one slow key holds up no other. A
partition's position is its lowest unfinished record, and that is what is committed; so after a crash the effect is asked for
again, and an effect must bear that (it reports back by command, and the decider knows what it has heard before).

What failure means here: an effect that raises is tried again after a back-off, its lane waiting; nothing is skipped.

An effect takes part by naming itself: see `Effect`.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from schemas.envelope import Record, first
from schemas.vocabulary import Vocabulary

log = logging.getLogger(__name__)

#: Seconds between commits of a partition's position.
COMMIT_SECONDS: Final = 1.0
#: Records a partition may have unfinished before its consumer is held back.
UNFINISHED: Final = 1000


@dataclass(frozen=True)
class Effect:
    """One effect: its permanent name, the topic it follows, the events it acts on, and what it does.

    `wants` is asked before the event is read any further: most events are nobody's business.
    """

    name: str
    topic: str
    vocabulary: Vocabulary
    wants: type
    act: Callable[[Any, Record], Awaitable[None]]
    concurrency: int = 8


class Positions(Protocol):
    """Where effects keep how far they have come, by (name, topic, partition)."""

    async def position(self, name: str, topic: str, partition: int) -> int: ...

    async def advance(self, name: str, topic: str, partition: int, position: int) -> None: ...


class Seeks(Protocol):
    def seek(self, topic: str, partition: int, offset: int) -> bool: ...


@dataclass(slots=True)
class Share:
    """One partition: what has been taken, what is unfinished, and the lanes that work it off."""

    expected: int | None = None
    unfinished: dict[int, None] = field(default_factory=dict)
    committed: int = 0
    lanes: dict[str, deque[Record]] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def position(self) -> int:
        return next(iter(self.unfinished), self.expected or 0)


class Effector:
    """The loop of one effect, over the partitions this process owns at the moment."""

    def __init__(self, effect: Effect, positions: Positions) -> None:
        self.effect = effect
        self._positions = positions
        self._kind = effect.vocabulary.types[effect.wants]
        self._room = asyncio.Semaphore(effect.concurrency)
        self._shares: dict[int, Share] = {}
        self._eased = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        self.subscription: Seeks | None = None

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            self._shares[partition] = Share()
            self._spawn(self._shares[partition], self._find(partition))
        self._committing = self._committing or asyncio.create_task(self._commit_behind())

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            if share := self._shares.pop(partition, None):
                for task in list(share.tasks):
                    task.cancel()
        self._eased.set()

    async def take(self, records: Sequence[Record]) -> None:
        self._pass_over_what_was_taken(records)
        for record in records:
            share = self._shares.get(record.partition)
            if share is None or share.expected is None or record.offset < share.expected:
                continue
            if record.offset > share.expected:
                self._seek(record.partition, share.expected)
                continue
            share.expected += 1
            if not record.void and _kind(record) == self._kind:
                share.unfinished[record.offset] = None
                self._enqueue(share, record)
        while any(len(share.unfinished) > UNFINISHED for share in self._shares.values()):
            self._eased.clear()
            await self._eased.wait()

    async def stop(self) -> None:
        """Lets go at once: what is unfinished is asked for again by whoever comes next."""
        tasks = [task for share in self._shares.values() for task in share.tasks]
        self._shares.clear()
        if self._committing:
            tasks.append(self._committing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── one partition ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, partition: int) -> None:
        share = self._shares[partition]
        while share.expected is None:
            try:
                share.committed = await self._positions.position(self.effect.name, self.effect.topic, partition)
                share.expected = share.committed
                self._seek(partition, share.committed)
            except Exception:
                log.exception("an effect waits for its position", extra={"effect": self.effect.name})
                await asyncio.sleep(0.5)

    def _pass_over_what_was_taken(self, records: Sequence[Record]) -> None:
        """A leader that has fallen behind knows no such offset, and the consumer then begins at the earliest."""
        for partition, last in {record.partition: record.offset for record in records}.items():
            share = self._shares.get(partition)
            if share is not None and share.expected is not None and last < share.expected:
                self._seek(partition, share.expected)

    def _enqueue(self, share: Share, record: Record) -> None:
        lane = share.lanes.get(record.key)
        if lane is None:
            share.lanes[record.key] = deque([record])
            self._spawn(share, self._work_off(share, record.key))
        else:
            lane.append(record)

    async def _work_off(self, share: Share, key: str) -> None:
        lane = share.lanes[key]
        while lane:
            await self._act(lane[0])
            share.unfinished.pop(lane.popleft().offset, None)
            self._eased.set()
        del share.lanes[key]

    async def _act(self, record: Record) -> None:
        pause = 0.1
        while True:
            try:
                async with self._room:  # not while it waits for its next try: one that fails holds up its own key only
                    return await self.effect.act(self.effect.vocabulary.decode(self._kind, record.value), record)
            except Exception:
                log.exception("an effect is tried again", extra={"effect": self.effect.name, "offset": record.offset})
                await asyncio.sleep(random.uniform(pause, pause * 2))  # noqa: S311 - spreads retries, hides nothing
                pause = min(pause * 2, 10)

    async def _commit_behind(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            for partition, share in list(self._shares.items()):
                if share.expected is not None and share.position > share.committed:
                    await self._commit(partition, share)

    async def _commit(self, partition: int, share: Share) -> None:
        position = share.position
        try:
            await self._positions.advance(self.effect.name, self.effect.topic, partition, position)
            share.committed = position
        except Exception:
            log.exception("a position waits for Postgres", extra={"effect": self.effect.name})

    def _spawn(self, share: Share, work: Any) -> None:
        task = asyncio.create_task(work)
        share.tasks.add(task)
        task.add_done_callback(share.tasks.discard)

    def _seek(self, partition: int, offset: int) -> None:
        if self.subscription is not None:
            self.subscription.seek(self.effect.topic, partition, offset)


def _kind(record: Record) -> str:
    return first(record.headers).get("ce_type", "")
