"""The decider's loop: compare and append (DESIGN 4, rules 2, 3 and 7).

A decider reads commands, asks a pure rule, and appends the events the rule answers with. It keeps a *lane* for each
partition. A lane knows the end of the log because it has folded all valid records up to there; it decides a batch of
commands against that state and appends all their events as one record batch, each event stamped with the offset it
expects (`position`). If the batch lands anywhere else it is void, for every reader and for ever: the lane then forgets what
it knew, reads the log on (*adopts*) and decides again. So a valid batch was always decided on exactly the log before it,
with any number of writers, after any crash, without locks, epochs or transactions.

What failure means here: an error of the log or of Postgres backs off and repeats; nothing is skipped. A command that our
own rule fails on is decided as failed and kept in `dead.letters`; it holds up nobody. Snapshots are written behind, and
only ever shorten adoption: a lost one costs time, never truth.

A context (mailbox, account, …) takes part by naming itself: see `Context`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from handlers.context import Context, KeepsDeadLetters, Log, Seeks, Unreadable, header
from handlers.documents import Cut, Documents, KeepsSnapshots, Key
from handlers.lane import Chunk, Lane
from schemas.envelope import Headers, Record, Source, event_headers, first, moment
from schemas.snapshots import Checkpoint
from schemas.vocabulary import encode

log = logging.getLogger(__name__)

#: Commands decided together at the most.
BATCH: Final = 300
#: Records a lane may have waiting before its consumer is held back.
QUEUE: Final = 1000
#: Seconds between snapshots.
SNAPSHOT_SECONDS: Final = 0.5
#: Bytes of one event at the most: a command that answers with more is our own fault.
LARGEST_EVENT: Final = 524_288
#: Seconds for which an input may look shorter than what was decided from it before the lane stops and says so.
PATIENCE_SECONDS: Final = 30.0


class MovedError(Exception):
    """Somebody else wrote, or we don't know what became of our batch: read on and decide again."""


class LaneStoppedError(Exception):
    """An input contradicts the log: going on would mix two histories. The sentence names the remedy."""


@dataclass(slots=True)
class Decided:
    """What a lane has decided but not yet appended."""

    batch: Any
    next: dict[str, int]
    now_ms: int
    position: int


class Decider:
    """The loop of one context, over all partitions that this process owns at the moment."""

    def __init__(self, context: Context, log: Log, snapshots: KeepsSnapshots, dead_letters: KeepsDeadLetters) -> None:
        self.context = context
        self._log = log
        self._snapshots = snapshots
        self._dead_letters = dead_letters
        self.lanes: dict[int, Lane] = {}
        self.subscription: Seeks | None = None
        #: Called with the sentence when a lane has to stop for good.
        self.on_stopped: Callable[[str], None] = log_stopped

    # ── being a consumer ──────────────────────────────────────────────────────────────────────────────────────────────

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        for number in sorted({partition for _, partition in partitions}):
            documents = Documents(self._snapshots, self.context.snapshot, number, self.context.read_document)
            lane = self.lanes[number] = Lane(number, list(self.context.inputs), documents)
            lane.task = asyncio.create_task(self._run(lane), name=f"lane {self.context.name}/{number}")

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        for number in {partition for _, partition in partitions}:
            if lane := self.lanes.pop(number, None):
                lane.retire()

    async def take(self, records: Sequence[Record]) -> None:
        """Sorts records into lanes; returns when none of them has too much waiting."""
        chunks: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            chunks.setdefault((record.topic, record.partition), []).append(record)
        for (topic, partition), found in chunks.items():
            if lane := self.lanes.get(partition):
                for start in range(0, len(found), BATCH):
                    lane.put(Chunk(topic, found[start : start + BATCH], self.context.inputs[topic]))
        while full := [lane for lane in self.lanes.values() if lane.waiting > QUEUE]:
            await full[0].less(QUEUE)

    async def stop(self) -> None:
        """Ends every lane after the step it is in, with a last snapshot."""
        lanes, self.lanes = list(self.lanes.values()), {}
        for lane in lanes:
            lane.retire()
        await asyncio.gather(*[lane.task for lane in lanes if lane.task], return_exceptions=True)

    # ── one lane ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, lane: Lane) -> None:
        pause = 0.01
        while lane.active:
            try:
                if lane.end is None:
                    await self._adopt(lane)
                chunks = await lane.next_chunks(BATCH, SNAPSHOT_SECONDS if lane.documents.dirty else None)
                if chunks:
                    await self._step(lane, chunks)
                    lane.done(chunks)
                    pause = 0.01
                self._write_behind(lane)
            except LaneStoppedError as stopped:
                lane.retire()
                self.on_stopped(str(stopped))
            except MovedError:
                lane.forget()
                await asyncio.sleep(random.uniform(pause, pause * 5))  # noqa: S311 - spreads writers, hides nothing
                pause = min(pause * 2, 0.2)
            except Exception:
                log.exception("lane backs off", extra={"context": self.context.name, "partition": lane.partition})
                lane.forget()
                await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - as above
        await self._last_snapshot(lane)

    async def _step(self, lane: Lane, chunks: list[Chunk]) -> None:
        """Decides the records that are next in line and appends what follows from them."""
        todo = []
        expected = dict(lane.next)
        for chunk in chunks:
            todo += self._in_line(lane, chunk, await chunk.commands(), expected)
        if not todo:
            return
        await self._load(lane, [key for record, command in todo for key in self._keys(record, command)])
        decided = self._begin(lane)
        for record, command in todo:
            subject, now_ms = self._subject(record, command), max(decided.now_ms, record.timestamp_ms)
            events = await self._events(lane, record, command, moment(now_ms))
            records = self._records(lane, record, subject, events, decided)
            if not decided.batch.fits(records):
                await self._append(lane, decided)
                decided = self._begin(lane)
                records = self._records(lane, record, subject, events, decided)
            self._fold(lane, subject, events)
            decided.batch.add(records)
            decided.position += len(records)
            decided.next[record.topic] = record.offset + 1
            decided.now_ms = now_ms
        await self._append(lane, decided)

    def _begin(self, lane: Lane) -> Decided:
        assert lane.end is not None
        return Decided(self._log.batch(), dict(lane.next), lane.now_ms, lane.end)

    def _in_line(
        self, lane: Lane, chunk: Chunk, commands: list[Any], expected: dict[str, int]
    ) -> list[tuple[Record, Any]]:
        """Drops what was decided already; at a gap, goes back to where it begins."""
        todo = []
        for record, command in zip(chunk.records, commands, strict=True):
            position = expected.get(chunk.topic, 0)
            if record.offset < position:
                continue
            if record.offset > position:
                lane.drop(chunk.topic)
                self._seek(lane, chunk.topic, position)
                break
            todo.append((record, command))
            expected[chunk.topic] = position + 1
        return todo

    def _keys(self, record: Record, command: Any) -> list[Key]:
        subject = ("sequence", self._subject(record, command))
        return [subject] if isinstance(command, Unreadable) else [subject, *self.context.needs(command, record.key)]

    def _subject(self, record: Record, command: Any) -> str:
        return record.key if isinstance(command, Unreadable) else self.context.subject(command)

    async def _load(self, lane: Lane, keys: list[Key]) -> None:
        end = await lane.documents.load(keys)
        if end is not None and lane.end is not None and end > lane.end:
            lane.floor = max(lane.floor, end)
            raise MovedError

    async def _events(self, lane: Lane, record: Record, command: Any, now: datetime) -> list[Any]:
        command_id, not_after = header(record, "ce_id"), header(record, "notafter")
        if isinstance(command, Unreadable):
            letter = await self._dead_letters.keep(record, cause=command.cause)
            return [CommandUnreadable(command_id, command.cause, letter)]
        # Its own time, not the lane's: one that waited in the log was acknowledged, and a promise does not lapse.
        if not_after and moment(record.timestamp_ms) > datetime.fromisoformat(not_after):
            return [CommandLapsed(command_id, datetime.fromisoformat(not_after))]
        try:
            events = self.context.decide(lane.documents, command, now)
        except Exception:
            log.exception("a rule failed", extra={"context": self.context.name, "command": type(command).__name__})
            letter = await self._dead_letters.keep(record, cause="rule_failed")
            return [CommandFailed(command_id, "rule_failed", letter)]
        if any(len(encode(event)) > LARGEST_EVENT for event in events):
            letter = await self._dead_letters.keep(record, cause="too_large")
            return [CommandFailed(command_id, "too_large", letter)]
        return events

    def _records(
        self, lane: Lane, record: Record, subject: str, events: list[Any], decided: Decided
    ) -> list[tuple[bytes, bytes, Headers]]:
        cause = first(record.headers)
        sequence = lane.documents.get(("sequence", subject)) or 0
        key = record.key.encode()
        return [
            (
                key,
                encode(event),
                event_headers(
                    event_id=f"{cause.get('ce_id') or record.source}.{number}",
                    kind=self.context.vocabulary.type_of(event),
                    subject=subject,
                    at=moment(max(decided.now_ms, record.timestamp_ms)),
                    position=decided.position + number,
                    cause=cause,
                    source=record.source,
                    sequence=sequence + number + 1,
                ),
            )
            for number, event in enumerate(events)
        ]

    def _fold(self, lane: Lane, subject: str, events: list[Any]) -> None:
        for event in events:
            lane.documents.apply({("sequence", subject): (lane.documents.get(("sequence", subject)) or 0) + 1})
            if not isinstance(event, CommandFailed | CommandLapsed | CommandUnreadable):
                lane.documents.apply(self.context.evolve(lane.documents, event))

    async def _append(self, lane: Lane, decided: Decided) -> None:
        if not len(decided.batch):
            # Nothing followed: it counts in memory only, until the next valid append shows that nothing was missed.
            lane.next, lane.now_ms = decided.next, decided.now_ms
            return
        expected, lane.end = lane.end, None  # until it is acknowledged we do not know where the log ends
        offset = await self._log.append(self.context.events, lane.partition, decided.batch)
        if offset != expected:
            if offset >= 0:
                lane.floor = max(lane.floor, offset + len(decided.batch))
            raise MovedError
        lane.end = lane.floor = decided.position
        lane.next, lane.now_ms = decided.next, decided.now_ms

    # ── adoption ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _adopt(self, lane: Lane) -> None:
        """Makes the lane know all that the log says: the snapshot, and the fold of the valid tail."""
        lane.documents.clear()
        saved = await self._snapshots.checkpoint(self.context.snapshot, lane.partition) or Checkpoint()
        lane.next, lane.now_ms, position = dict(saved.inputs), saved.now_ms, saved.end
        floor = max(lane.floor, saved.end)
        async for records in self._log.read_on(self.context.events, lane.partition, position, floor=floor):
            await self._fold_tail(lane, [record for record in records if not record.void], saved)
            position += len(records)
            if lane.documents.dirty > QUEUE * 20:
                saved = Checkpoint(position, dict(lane.next), lane.now_ms)
                if not await lane.documents.cut(saved).save():
                    raise MovedError
        await self._check_inputs(lane)
        lane.end = lane.floor = position
        for topic in self.context.inputs:
            if lane.must_seek:
                self._seek(lane, topic, lane.next.get(topic, 0))
        lane.must_seek = False

    async def _fold_tail(self, lane: Lane, records: list[Record], saved: Checkpoint) -> None:
        read = [(record, first(record.headers)) for record in records]
        events = [self.context.vocabulary.decode(headers["ce_type"], record.value) for record, headers in read]
        ours = [not headers["ce_type"].startswith("log.") for _, headers in read]
        keys = [
            key
            for (_, headers), event, is_ours in zip(read, events, ours, strict=True)
            if is_ours
            for key in [("sequence", headers["ce_subject"]), *self._touched(event)]
        ]
        end = await lane.documents.load(keys)
        if end is not None and end != saved.end:
            raise MovedError
        for (_, headers), event, is_ours in zip(read, events, ours, strict=True):
            if is_ours:
                source = Source.read(headers["srcpos"])
                lane.next[source.topic] = max(lane.next.get(source.topic, 0), source.offset + 1)
                lane.now_ms = max(lane.now_ms, _ms(headers["ce_time"]))
                self._fold(lane, headers["ce_subject"], [event])

    def _touched(self, event: Any) -> list[Key]:
        outcome = isinstance(event, CommandFailed | CommandLapsed | CommandUnreadable)
        return [] if outcome else self.context.touches(event)

    async def _check_inputs(self, lane: Lane) -> None:
        """log start ≤ next ≤ end must hold for every input; a stale leader may look short for a while."""
        loop = asyncio.get_running_loop()
        deadline, nothing_decided = loop.time() + PATIENCE_SECONDS, not lane.next
        for topic in self.context.inputs:
            while True:
                start, end = await self._log.bounds(topic, lane.partition)
                position = lane.next.setdefault(topic, start if nothing_decided else 0)
                if start <= position <= end:
                    break
                if loop.time() > deadline:
                    raise LaneStoppedError(
                        f"{topic}/{lane.partition} holds offsets {start} to {end}, but decisions in {self.context.events} "
                        f"were made from it up to {position}: this is not the topic they were made from. Restore it, or "
                        f"start with an empty Kafka and an empty database."
                    )
                await asyncio.sleep(1)

    def _seek(self, lane: Lane, topic: str, offset: int) -> None:
        if self.subscription is not None:
            self.subscription.seek(topic, lane.partition, offset)

    # ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write_behind(self, lane: Lane) -> None:
        """Cut between two steps, so that it is consistent; written beside the next step."""
        if lane.end is not None and lane.documents.dirty and lane.snapshot_due(SNAPSHOT_SECONDS):
            lane.documents.let_go()
            lane.saving = asyncio.create_task(self._save(lane.documents.cut(self._checkpoint(lane))))

    async def _save(self, cut: Cut) -> None:
        """A loser loses nothing: documents are a function of the log, and a later snapshot holds them as they are later."""
        try:
            await cut.save()
        except Exception:
            log.exception("snapshot failed", extra={"context": self.context.name})

    async def _last_snapshot(self, lane: Lane) -> None:
        if lane.saving:
            await lane.saving
        if lane.end is not None and lane.documents.dirty:
            await self._save(lane.documents.cut(self._checkpoint(lane)))

    @staticmethod
    def _checkpoint(lane: Lane) -> Checkpoint:
        assert lane.end is not None
        return Checkpoint(lane.end, dict(lane.next), lane.now_ms)


def log_stopped(sentence: str) -> None:
    log.critical(sentence)


def _ms(rfc3339: str) -> int:
    return round(datetime.fromisoformat(rfc3339).timestamp() * 1000)
