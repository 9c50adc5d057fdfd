"""The effector's loop: records in, one thing done in the world for each (DESIGN 4, rule 5).

Many records are in flight, in lanes by key: what one key asks for is begun in its order, and one slow key holds up no other.
A partition's position is its lowest unfinished record, and that is what is committed; so after a crash the effect is asked
for again, and an effect must bear that (it reports back by command, and the decider knows what it has heard before).

It follows a truth topic, or topics of work (`Effect.truth`). A partition of which very much is unfinished is paused, and
goes on where it was: nothing waits but that partition.

What failure means here: an effect that raises is tried again after a back-off, in its place; nothing is skipped. Only work
that can't be read is passed over: it is an order and no fact, and a timer orders again what it was about.

Work that a crash has doubled is acted on once (`Effect.once`): an effect that is asked for again appends what it has appended
before, and each of two would be followed by work of its own. Where workers die one after the other, that would be more than
all else there is to do. Work has an id that derives from that of the record it follows from and stays the same wherever it
waits, so both bear the same; and the position never passes the first of them before it has ended.

An effect takes part by naming itself: see `Effect`.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from schemas.envelope import Record
from schemas.vocabulary import InvalidBody, Vocabulary

log = logging.getLogger(__name__)

#: Seconds between commits of a partition's position: a worker that dies has what was ended since done once more.
COMMIT_SECONDS: Final = 0.25
#: Records a partition may have unfinished before it is paused.
UNFINISHED: Final = 1000

#: Times that a consumer of work is sent back to what seems to be missing, before it is believed to be no longer kept: what
#: was fetched before our own position was known begins anywhere.
GAPS: Final = 3

#: Ids of work that are remembered of a partition.
REMEMBERED: Final = 10_000

Act = Callable[[Any, Record], Awaitable[None]]
Place = tuple[str, int]


@dataclass(frozen=True)
class Effect:
    """One effect: its permanent name, the topics it follows, the types it acts on, and what it does.

    `wants` is asked before the record is read any further: most are nobody's business. `concurrency` is how many are acted on
    at once of each topic, `width` how many of one lane, for all or by record; `lane` names a record's lane, where that is
    not its key. Where more than `waiting` wait, `surplus` is done with the rest in place of `act`; of work of a `distinct`
    type only the first on each subject waits, as what comes behind it says the same. `truth`: whether void records have to be
    passed over, and a gap is an error. `once`: what tells a record from all others; one that this partition has had already
    is passed over. `drain_seconds`: how long what has begun may go on when the process ends; where another process takes
    over, it is then left, and not cut off.
    """

    name: str
    topic: str | tuple[str, ...]
    vocabulary: Vocabulary
    wants: type | tuple[type, ...]
    act: Act
    concurrency: int = 8
    width: int | Callable[[Record], int] = 1
    lane: Callable[[Record], str] | None = None
    waiting: int | None = None
    surplus: Act | None = None
    unfinished: int = UNFINISHED
    truth: bool = True
    distinct: tuple[type, ...] = ()
    once: Callable[[Record], str | None] | None = None
    drain_seconds: float = 0.0

    @property
    def topics(self) -> tuple[str, ...]:
        return (self.topic,) if isinstance(self.topic, str) else self.topic


class Positions(Protocol):
    """Where effects keep how far they have come, by (name, topic, partition)."""

    async def position(self, name: str, topic: str, partition: int) -> int: ...

    async def advance(self, name: str, topic: str, partition: int, position: int) -> None: ...


class Feeds(Protocol):
    """The consumer behind an effect; each answers False where the partition isn't ours (any more)."""

    def seek(self, topic: str, partition: int, offset: int) -> bool: ...

    def pause(self, topic: str, partition: int) -> bool: ...

    def resume(self, topic: str, partition: int) -> bool: ...


@dataclass(slots=True)
class KeyLane:
    """What waits of one key, and how many of it are being worked off."""

    waiting: deque[Record] = field(default_factory=deque)
    subjects: set[str] = field(default_factory=set)
    workers: int = 0


@dataclass(slots=True)
class Share:
    """One partition: what has been taken, what is unfinished, and the lanes that work it off."""

    expected: int | None = None
    unfinished: dict[int, None] = field(default_factory=dict)
    committed: int = 0
    lanes: dict[str, KeyLane] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    had: dict[str, None] = field(default_factory=dict)
    paused: bool = False
    gaps: int = 0

    @property
    def position(self) -> int:
        return next(iter(self.unfinished), self.expected or 0)

    def had_already(self, name: str | None) -> bool:
        """Whether one of that name has been taken since the partition is ours; remembers it."""
        if name is None:
            return False
        if name in self.had:
            return True
        self.had[name] = None
        if len(self.had) > REMEMBERED:
            del self.had[next(iter(self.had))]
        return False


class Effector:
    """The loop of one effect, over the partitions this process owns at the moment."""

    def __init__(self, effect: Effect, positions: Positions) -> None:
        self.effect = effect
        self._positions = positions
        wanted = effect.wants if isinstance(effect.wants, tuple) else (effect.wants,)
        self._kinds = frozenset(effect.vocabulary.types[kind] for kind in wanted)
        self._distinct = frozenset(effect.vocabulary.types[kind] for kind in effect.distinct)
        self._width = _width_of(effect.width)
        self._room = {topic: asyncio.Semaphore(effect.concurrency) for topic in effect.topics}
        self._shares: dict[Place, Share] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._committing: asyncio.Task[None] | None = None
        self.subscription: Feeds | None = None

    # ── being a consumer ──────────────────────────────────────────────────────────────────────────────────────────────

    async def assigned(self, partitions: Sequence[Place]) -> None:
        for place in partitions:
            self._shares[place] = Share()
            self._spawn(self._shares[place], self._find(place))
        self._committing = self._committing or asyncio.create_task(self._commit_behind())

    async def revoked(self, partitions: Sequence[Place]) -> None:
        for place in partitions:
            if share := self._shares.pop(place, None):
                self._let_go(share)

    async def take(self, records: Sequence[Record]) -> None:
        self._pass_over_what_was_taken(records)
        for record in records:
            place = (record.topic, record.partition)
            share = self._shares.get(place)
            if share is None or share.expected is None or record.offset < share.expected:
                continue
            if record.offset > share.expected:
                share.gaps += 1
                if self.effect.truth or share.gaps <= GAPS:
                    self._seek(place, share.expected)
                    continue
                share.expected = record.offset  # what was before is no longer kept
            share.gaps = 0
            share.expected += 1
            if self._is_wanted(record) and not self._had_already(share, record):
                share.unfinished[record.offset] = None
                self._enqueue(place, share, record)

    async def stop(self) -> None:
        """Begins nothing more; what has begun goes on for as long as the effect allows, and is asked for again otherwise."""
        shares, self._shares = list(self._shares.values()), {}
        for share in shares:
            self._let_go(share)
        if self._left and self.effect.drain_seconds:
            await asyncio.wait(self._left, timeout=self.effect.drain_seconds)
        tasks = [*self._left, *([self._committing] if self._committing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── one partition ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, place: Place) -> None:
        share = self._shares[place]
        while share.expected is None:
            try:
                share.committed = await self._positions.position(self.effect.name, *place)
                share.expected = share.committed
                self._seek(place, share.committed)
            except Exception:
                log.exception("an effect waits for its position", extra={"effect": self.effect.name})
                await asyncio.sleep(0.5)

    def _pass_over_what_was_taken(self, records: Sequence[Record]) -> None:
        """A leader that has fallen behind knows no such offset, and the consumer then begins at the earliest."""
        for place, last in {(record.topic, record.partition): record.offset for record in records}.items():
            share = self._shares.get(place)
            if share is not None and share.expected is not None and last < share.expected:
                self._seek(place, share.expected)

    def _is_wanted(self, record: Record) -> bool:
        return not (self.effect.truth and record.void) and kind_of(record) in self._kinds

    def _had_already(self, share: Share, record: Record) -> bool:
        return self.effect.once is not None and share.had_already(self.effect.once(record))

    def _enqueue(self, place: Place, share: Share, record: Record) -> None:
        name = record.key if self.effect.lane is None else self.effect.lane(record)
        lane = share.lanes.get(name)
        if lane is None:
            lane = share.lanes[name] = KeyLane()
        surplus, distinct = self.effect.surplus, kind_of(record) in self._distinct
        if distinct and _subject(record) in lane.subjects:
            share.unfinished.pop(record.offset, None)
        elif surplus and self.effect.waiting is not None and len(lane.waiting) >= self.effect.waiting:
            self._spawn(share, self._finish(place, share, record, surplus))
        else:
            lane.waiting.append(record)
            if distinct:
                lane.subjects.add(_subject(record))
            if lane.workers < self._width(record):
                lane.workers += 1
                self._spawn(share, self._work_off(place, share, name, lane))
        if len(share.unfinished) > self.effect.unfinished and not share.paused and self.subscription is not None:
            share.paused = self.subscription.pause(*place)

    async def _work_off(self, place: Place, share: Share, name: str, lane: KeyLane) -> None:
        try:
            while lane.waiting:
                record = lane.waiting.popleft()
                if kind_of(record) in self._distinct:
                    lane.subjects.discard(_subject(record))
                await self._finish(place, share, record, self.effect.act)
        finally:
            lane.workers -= 1
            if not lane.workers and not lane.waiting and share.lanes.get(name) is lane:
                del share.lanes[name]

    async def _finish(self, place: Place, share: Share, record: Record, act: Act) -> None:
        await self._act(record, act)
        share.unfinished.pop(record.offset, None)
        if share.paused and len(share.unfinished) <= self.effect.unfinished // 2 and self.subscription is not None:
            share.paused = False
            if self._shares.get(place) is share:
                self.subscription.resume(*place)

    async def _act(self, record: Record, act: Act) -> None:
        pause = 0.1
        while True:
            try:
                # Not while it waits for its next try: one that fails holds up its own key only.
                async with self._room[record.topic]:
                    return await act(self.effect.vocabulary.decode(kind_of(record), record.value), record)
            except Exception as error:
                log.exception("an effect fails", extra={"effect": self.effect.name, "offset": record.offset})
                if isinstance(error, InvalidBody) and not self.effect.truth:
                    return None
                await asyncio.sleep(random.uniform(pause, pause * 2))  # noqa: S311 - spreads retries, hides nothing
                pause = min(pause * 2, 10)

    async def _commit_behind(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            for place, share in list(self._shares.items()):
                if share.expected is not None and share.position > share.committed:
                    await self._commit(place, share)

    async def _commit(self, place: Place, share: Share) -> None:
        position = share.position
        try:
            await self._positions.advance(self.effect.name, *place, position)
            share.committed = position
        except Exception:
            log.exception("a position waits for Postgres", extra={"effect": self.effect.name})

    def _spawn(self, share: Share, work: Any) -> None:
        task = asyncio.create_task(work)
        share.tasks.add(task)
        task.add_done_callback(share.tasks.discard)

    def _let_go(self, share: Share) -> None:
        """What waits is given up; what has begun is, too, unless the effect wants it to go on."""
        share.expected = None
        for lane in share.lanes.values():
            lane.waiting.clear()
        for task in list(share.tasks):
            self._left.add(task)
            task.add_done_callback(self._left.discard)
            if not self.effect.drain_seconds:
                task.cancel()

    def _seek(self, place: Place, offset: int) -> None:
        if self.subscription is not None:
            self.subscription.seek(*place, offset)


def _width_of(width: int | Callable[[Record], int]) -> Callable[[Record], int]:
    return width if callable(width) else lambda _: width


def same_work(record: Record) -> str | None:
    """Tells work from other work; None where it has no id."""
    return record.header("ce_id") or None


def same_step(record: Record) -> str | None:
    """Tells work from other work, and from itself where it goes round a tier once more; None where it has no id."""
    name = record.header("ce_id")
    return f"{name}/{record.header('hops') or '0'}" if name else None


def kind_of(record: Record) -> str:
    """The type of a record's body; empty where none is said."""
    return record.header("ce_type")


def _subject(record: Record) -> str:
    return f"{kind_of(record)}/{record.header('ce_subject')}"
