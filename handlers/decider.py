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
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from handlers.adoption import Adopts, NewerVersionError, fold
from handlers.append import compare_and_append
from handlers.context import Context, KeepsDeadLetters, Log, Unreadable
from handlers.documents import Cut, Documents, KeepsSnapshots, Key
from handlers.inputs import Proves
from handlers.lane import Chunk, Feeds, Lane, LaneStoppedError, MovedError
from schemas.envelope import Headers, Record, event_headers, first, milliseconds, moment
from schemas.topics import DECIDER_BATCH_BYTES
from schemas.vocabulary import encode

log = logging.getLogger(__name__)

#: Seconds in which a lane that has something to do gets on, or fails; more than any of its own limits.
HANGS_SECONDS: Final = 40.0

#: Commands decided together at the most.
BATCH: Final = 300
#: Seconds between snapshots.
SNAPSHOT_SECONDS: Final = 0.5
#: Bytes of one event at the most: a command that answers with more is our own fault.
LARGEST_EVENT: Final = 524_288
#: What the headers and the frame of one event take in its batch, at the most.
EVENT_OVERHEAD: Final = 2048
#: Seconds that `stop` gives each lane to end the step it is in.
STOP_SECONDS: Final = 15.0
#: Seconds until a log in which a newer version has written is read again.
NEWER_SECONDS: Final = 2.0

#: U+0000 in a JSON body, as JSON spells it, and where that is not an escaped backslash before digits. Postgres can't hold it,
#: so it would stop whoever writes what follows from it.
NUL: Final = rb"\u0000"
NUL_ITSELF: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(slots=True)
class Decided:
    """What a lane has decided but not yet appended; `first` is each command's first event, None where none followed."""

    batch: Any
    next: dict[str, int]
    now_ms: int
    position: int
    first: list[Any] = field(default_factory=list)


class Decider:
    """The loop of one context, over all partitions that this process owns at the moment."""

    def __init__(self, context: Context, log: Log, snapshots: KeepsSnapshots, dead_letters: KeepsDeadLetters) -> None:
        self.context = context
        self._log = log
        self._snapshots = snapshots
        self._adopts = Adopts(context, log, snapshots)
        self._proves = Proves(context, log, self._save)
        self._dead_letters = dead_letters
        self.lanes: dict[int, Lane] = {}
        self.subscription: Feeds | None = None
        self._watching: asyncio.Task[None] | None = None
        #: Called with the sentence when a lane has to stop for good.
        self.on_stopped: Callable[[str], None] = log_stopped
        #: Called for each command whose outcome is in the log, with its first event, or None where none followed.
        self.on_decided: Callable[[str, Any], None] = not_counted

    @property
    def topics(self) -> list[str]:
        return list(self.context.inputs)

    # ── being a consumer ──────────────────────────────────────────────────────────────────────────────────────────────

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        for number in sorted({partition for _, partition in partitions}):
            self._begin_lane(number)
        self._watching = self._watching or asyncio.create_task(self._watch())

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        for number in {partition for _, partition in partitions}:
            if lane := self.lanes.pop(number, None):
                lane.retire()

    async def trouble(self) -> str | None:
        """What keeps partitions from being decided, as a sentence; None where nothing does."""
        return " ".join(sorted({lane.trouble for lane in self.lanes.values() if lane.trouble})) or None

    async def take(self, records: Sequence[Record]) -> None:
        """Sorts records into lanes, and waits for none: a slow one holds up neither the others nor its own other inputs."""
        chunks: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            chunks.setdefault((record.topic, record.partition), []).append(record)
        for (topic, partition), found in chunks.items():
            if (lane := self.lanes.get(partition)) and lane.active and not lane.trouble:
                lane.put(topic, found, self.context.inputs[topic])
                self._hold_back(lane, topic)

    def _hold_back(self, lane: Lane, topic: str) -> None:
        """Keeps memory bounded."""
        if lane.full(topic) and self.subscription is not None:
            self.subscription.pause(topic, lane.partition)

    def _let_flow(self, lane: Lane, topic: str) -> None:
        """Has more of it fetched. A lane that has been replaced says nothing of what its successor has waiting."""
        ours = self.lanes.get(lane.partition) is lane
        if ours and lane.has_eased(topic) and self.subscription is not None:
            self.subscription.resume(topic, lane.partition)

    def _has_read(self) -> None:
        """What is read for one lane is a step for all that wait for it: they share the parser, first come, first served."""
        for lane in self.lanes.values():
            if lane.waits_for_reading:
                lane.got_on()

    async def stop(self) -> None:
        """Ends every lane after the step it is in, with a last snapshot of all that it has decided."""
        if self._watching:
            self._watching.cancel()
        lanes, self.lanes = list(self.lanes.values()), {}
        for lane in lanes:
            lane.last_words = True
            lane.retire()
        tasks = [lane.task for lane in lanes if lane.task]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin_lane(self, number: int) -> None:
        documents = Documents(self._snapshots, self.context.snapshot, number, self.context.read_document)
        lane = self.lanes[number] = Lane(number, list(self.context.inputs), documents, on_read=self._has_read)
        lane.on_eased = partial(self._let_flow, lane)
        lane.task = asyncio.create_task(self._run(lane), name=f"lane {self.context.name}/{number}")

    async def _watch(self) -> None:
        """A lane that hangs, in whatever, is left to itself and replaced: two of them alive at once do no harm."""
        while True:
            await asyncio.sleep(HANGS_SECONDS / 10)
            for number, lane in list(self.lanes.items()):
                if lane.hangs(HANGS_SECONDS):
                    log.error("a lane hangs", extra={"context": self.context.name, "partition": number})
                    lane.retire()
                    if lane.task:
                        lane.task.cancel()
                    self._begin_lane(number)

    # ── one lane ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, lane: Lane) -> None:
        pause = 0.01
        while lane.active:
            try:
                if lane.end is None:
                    await self._adopts.adopt(lane)
                    self._line_up(lane)
                lane.got_on()
                chunks = await lane.next_chunks(BATCH, self._idle_seconds(lane))
                if chunks:
                    lane.got_on()
                    await self._step(lane, chunks)
                    lane.done(chunks)
                    self._line_up(lane)
                    pause = 0.01
                self._write_behind(lane)
                await self._proves.when_due(lane)
            except LaneStoppedError as stopped:
                lane.retire()
                self.on_stopped(str(stopped))
            except MovedError:
                lane.forget()
                lane.got_on()
                await asyncio.sleep(random.uniform(pause, pause * 5))  # noqa: S311 - spreads writers, hides nothing
                pause = min(pause * 2, 0.2)
            except NewerVersionError as newer:
                if lane.trouble != str(newer):
                    log.critical(str(newer))
                lane.set_aside(str(newer))
                await asyncio.sleep(NEWER_SECONDS)
            except Exception:
                log.exception("lane backs off", extra={"context": self.context.name, "partition": lane.partition})
                lane.forget()
                lane.got_on()
                await asyncio.sleep(random.uniform(pause * 5, pause * 10))  # noqa: S311 - as above
                pause = min(pause * 2, 0.2)
        await self._last_snapshot(lane)
        if lane.last_words:
            await self._proves.at_the_end(lane)

    def _idle_seconds(self, lane: Lane) -> float | None:
        """Until there is something to do though nothing comes: a snapshot, or a marker."""
        snapshot, marker = SNAPSHOT_SECONDS if lane.documents.dirty else None, self._proves.due_in(lane)
        return min((due for due in (snapshot, marker) if due is not None), default=None)

    async def _step(self, lane: Lane, chunks: list[Chunk]) -> None:
        """Decides the records that are next in line and appends what follows from them."""
        begins = {chunk.topic: chunk.records[0].offset for chunk in reversed(chunks)}
        if any(offset != lane.next.get(topic, 0) for topic, offset in begins.items()):
            # So it is after a rebalance; with a topic that was made anew; and where what comes next was removed.
            await self._adopts.check_inputs(lane)
        todo = self._in_line(lane, chunks)
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
            fold(self.context, lane, subject, events)
            decided.batch.add(records)
            decided.position += len(records)
            decided.next[record.topic] = record.offset + 1
            decided.now_ms = now_ms
            decided.first.append(events[0] if events else None)
        await self._append(lane, decided)

    def _begin(self, lane: Lane) -> Decided:
        assert lane.end is not None
        return Decided(self._log.batch(), dict(lane.next), lane.now_ms, lane.end)

    def _in_line(self, lane: Lane, chunks: list[Chunk]) -> list[tuple[Record, Any]]:
        """Leaves out what was decided already, and what comes after a gap."""
        todo, expected = [], dict(lane.next)
        for chunk in chunks:
            for record, command in zip(chunk.records, chunk.commands, strict=True):
                if record.offset == expected.get(chunk.topic, 0):
                    todo.append((record, self._sound(record, command)))
                    expected[chunk.topic] = record.offset + 1
        return todo

    def _line_up(self, lane: Lane) -> None:
        """Goes to what is to be decided next on each input, where that is not what comes next by itself."""
        for topic in self.context.inputs:
            if lane.out_of_line(topic):
                lane.drop(topic)
                position = lane.next.get(topic, 0)
                if self.subscription is not None and self.subscription.seek(topic, lane.partition, position):
                    lane.fetched[topic] = position

    def _sound(self, record: Record, command: Any) -> Any:
        """A command whose time can't be read, or with U+0000 in it, is none: nobody could write down what follows from it."""
        if isinstance(command, Unreadable):
            return command
        try:
            _not_after(record)
        except ValueError:
            return Unreadable("missing_header")
        ids = [record.key, record.header("ce_id"), *[name for _, name in self._keys(record, command)]]
        return Unreadable("invalid_body") if "\0" in "".join(ids) or _holds_nul(record.value) else command

    def _keys(self, record: Record, command: Any) -> list[Key]:
        subject = ("sequence", self._subject(record, command))
        return [subject] if isinstance(command, Unreadable) else [subject, *self.context.needs(command, record.key)]

    def _subject(self, record: Record, command: Any) -> str:
        return _plain(record.key) if isinstance(command, Unreadable) else self.context.subject(command)

    async def _load(self, lane: Lane, keys: list[Key]) -> None:
        end = await lane.documents.load(keys)
        if end is not None and lane.end is not None and end > lane.end:
            lane.floor = max(lane.floor, end)
            raise MovedError

    async def _events(self, lane: Lane, record: Record, command: Any, now: datetime) -> list[Any]:
        command_id = _plain(record.header("ce_id"))
        if isinstance(command, Unreadable):
            letter = await self._dead_letters.keep(record, cause=command.cause)
            return [CommandUnreadable(command_id, command.cause, letter)]
        # Its own time, not the lane's: one that waited in the log was acknowledged, and a promise does not lapse.
        not_after = _not_after(record)
        if not_after and record.timestamp_ms > milliseconds(not_after):
            return [CommandLapsed(command_id, not_after)]
        try:
            events = self.context.decide(lane.documents, command, now)
        except Exception:
            log.exception("a rule failed", extra={"context": self.context.name, "command": type(command).__name__})
            letter = await self._dead_letters.keep(record, cause="rule_failed")
            return [CommandFailed(command_id, "rule_failed", letter)]
        sizes = [len(encode(event)) for event in events]
        if (
            any(size > LARGEST_EVENT for size in sizes)
            or sum(sizes) + len(sizes) * EVENT_OVERHEAD > DECIDER_BATCH_BYTES
        ):
            letter = await self._dead_letters.keep(record, cause="too_large")
            return [CommandFailed(command_id, "too_large", letter)]
        return events

    def _records(
        self, lane: Lane, record: Record, subject: str, events: list[Any], decided: Decided
    ) -> list[tuple[bytes, bytes, Headers]]:
        cause = {name: _plain(text) for name, text in first(record.headers).items()}
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

    async def _append(self, lane: Lane, decided: Decided) -> None:
        if not len(decided.batch):
            lane.went_on(decided.next, decided.now_ms)
            self._tell(decided)
            return
        await compare_and_append(self._log, self.context.events, lane, decided.batch)
        lane.next, lane.now_ms = decided.next, decided.now_ms
        lane.marked_at = None
        lane.prove()
        self._tell(decided)

    def _tell(self, decided: Decided) -> None:
        for event in decided.first:
            self.on_decided(self.context.name, event)

    # ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write_behind(self, lane: Lane) -> None:
        """Cut between two steps, so that it is consistent; written beside the next step."""
        if lane.end is not None and lane.documents.dirty and lane.snapshot_due(SNAPSHOT_SECONDS):
            lane.documents.let_go()
            lane.saving = asyncio.create_task(self._save(lane.documents.cut(lane.proven)))

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
            await self._save(lane.documents.cut(lane.proven))


def log_stopped(sentence: str) -> None:
    log.critical(sentence)


def not_counted(context: str, event: Any) -> None:
    pass


def _not_after(record: Record) -> datetime | None:
    """When the command lapses; raises ValueError."""
    text = record.header("notafter")
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _holds_nul(body: bytes) -> bool:
    # The first question is a hundred times as fast, and its answer nearly always no.
    return NUL in body and NUL_ITSELF.search(body) is not None


def _plain(text: str) -> str:
    return text.replace("\0", "\ufffd")
