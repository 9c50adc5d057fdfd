"""Adoption: making a lane know all that the log says (DESIGN 4, rules 2 and 3).

A lane adopts when it takes a partition over, and whenever it can't know where the log ends: after a batch that landed
elsewhere, or of which nothing was heard. It begins with the snapshot and folds the valid records that follow it.

It makes sure that this is the log, and these are the inputs, that its partition was decided on: log start ≤ next ≤ end must
hold for all of them. A leader that has fallen behind looks too short for a while. What stays too short is not the topic that
was decided on; an input that begins too late has lost records that had been acknowledged and may not have been decided. Then
the lane stops for good and says so: only an operator can say that the lost ones be passed over (`log.input-reset`).

It never folds past an event that it does not understand: a newer version wrote it, and what that one decided next rests
on it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from domain.outcomes import (
    CommandFailed,
    CommandLapsed,
    CommandUnreadable,
    EventSkipped,
    InputReset,
    LogOpened,
)
from handlers.context import Context, Log
from handlers.documents import KeepsSnapshots, Key
from handlers.lane import Lane, LaneStoppedError, MovedError
from schemas.envelope import Record, first, milliseconds
from schemas.inputs import fold_inputs
from schemas.snapshots import Checkpoint

#: Seconds for which a topic may look other than what was decided from it before the lane stops and says so.
PATIENCE_SECONDS: Final = 30.0
#: Seconds between two looks.
LOOK_SECONDS: Final = 1.0
#: Documents changed by the tail from which a snapshot is written on the way, so that memory stays bounded.
DIRTY: Final = 20_000

#: What keeps a lane from reading its log until its process is updated.
NEWER: Final = (
    "{record.topic}/{record.partition}/{record.offset} holds {kind}, which this version can't read: a newer version has "
    "written to this log. Update this process; until then it decides nothing in this partition."
)
REMOVED: Final = (
    "{topic}/{partition} begins at {start}, but what is to be decided next stood at {lowest}: records were removed that "
    "had been acknowledged and may never have been decided. Restore the topic's data; or, to go on without them: "
    "python main.py reset-input {topic} --partition {partition} --reason …"
)
ANOTHER: Final = (
    "{topic}/{partition} holds offsets {start} to {end}, but what was decided rests on it from {lowest} up to {highest}: "
    "this is not the topic it was decided on. Restore it, or start with an empty Kafka and an empty database."
)

OUTCOMES: Final = (CommandFailed, CommandLapsed, CommandUnreadable)
#: Their time is that of an operator's clock, and not of the records that were decided.
OF_OPERATORS: Final = (LogOpened, EventSkipped, InputReset)


class NewerVersionError(Exception):
    """The log holds an event that this version doesn't understand; says which, and what to do."""


def fold(context: Context, lane: Lane, subject: str, events: Sequence[Any]) -> None:
    """What the lane knows after these events about this subject."""
    for event in events:
        sequence = ("sequence", subject)
        lane.documents.apply({sequence: (lane.documents.get(sequence) or 0) + 1})
        if not isinstance(event, OUTCOMES):
            lane.documents.apply(context.evolve(lane.documents, event))


class Adopts:
    """Brings the lanes of one context up to the end of the log."""

    def __init__(self, context: Context, log: Log, snapshots: KeepsSnapshots) -> None:
        self._context = context
        self._log = log
        self._snapshots = snapshots

    async def adopt(self, lane: Lane) -> None:
        """Raises MovedError (try again), LaneStoppedError, NewerVersionError, or what keeps log or snapshots away."""
        lane.documents.clear()
        saved = await self._snapshots.checkpoint(self._context.snapshot, lane.partition) or Checkpoint()
        lane.next, lane.now_ms = dict(saved.inputs), saved.now_ms
        floor = max(lane.floor, saved.end)
        await self._holds(lane, self._context.events, saved.end, floor, ANOTHER)
        position = await self._fold_on(lane, saved, floor)
        await self.check_inputs(lane)
        lane.end = lane.floor = position
        lane.trouble = ""
        lane.prove()

    async def check_inputs(self, lane: Lane) -> None:
        """Raises LaneStoppedError where an input is not the one that was decided on."""
        for topic in self._context.inputs:
            position = lane.next.setdefault(topic, 0)
            await self._holds(lane, topic, position, position, REMOVED)

    async def _holds(self, lane: Lane, topic: str, lowest: int, highest: int, begins_late: str) -> None:
        """Returns once the topic begins at or before `lowest` and ends at or after `highest`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            start, end = await self._log.bounds(topic, lane.partition)
            if start <= lowest and highest <= end:
                return
            if loop.time() > deadline:
                sentence = begins_late if start > lowest else ANOTHER
                raise LaneStoppedError(
                    sentence.format(
                        topic=topic, partition=lane.partition, start=start, end=end, lowest=lowest, highest=highest
                    )
                )
            if not lane.active:
                raise MovedError
            lane.got_on()
            await asyncio.sleep(LOOK_SECONDS)

    async def _fold_on(self, lane: Lane, saved: Checkpoint, floor: int) -> int:
        """Folds the valid records from the snapshot to the end of the log; answers with that end."""
        position = saved.end
        async with aclosing(self._log.read_on(self._context.events, lane.partition, position, floor=floor)) as batches:
            async for records in batches:
                await self._fold_tail(lane, [record for record in records if not record.void], saved)
                position += len(records)
                lane.got_on()
                if not lane.active:
                    raise MovedError
                if lane.documents.dirty > DIRTY:
                    saved = Checkpoint(position, dict(lane.next), lane.now_ms)
                    if not await lane.documents.cut(saved).save():
                        raise MovedError
                    lane.documents.let_go()
        return position

    async def _fold_tail(self, lane: Lane, records: list[Record], saved: Checkpoint) -> None:
        tail = [self._understood(record) for record in records]
        ours = [(headers, event) for _, headers, event in tail if not headers["ce_type"].startswith("log.")]
        end = await lane.documents.load([key for headers, event in ours for key in self._touched(headers, event)])
        if end is not None and end != saved.end:
            raise MovedError
        for record, headers, event in tail:
            fold_inputs(lane.next, record, headers)
            if not isinstance(event, OF_OPERATORS):
                lane.now_ms = max(lane.now_ms, milliseconds(datetime.fromisoformat(headers["ce_time"])))
        for headers, event in ours:
            fold(self._context, lane, headers["ce_subject"], [event])

    def _understood(self, record: Record) -> tuple[Record, dict[str, str], Any]:
        """Raises NewerVersionError."""
        headers = first(record.headers)
        kind = headers.get("ce_type", "a record without a type")
        try:
            return record, headers, self._context.vocabulary.decode(kind, record.value)
        except ValueError as error:
            raise NewerVersionError(NEWER.format(record=record, kind=kind)) from error

    def _touched(self, headers: dict[str, str], event: Any) -> list[Key]:
        sequence = ("sequence", headers["ce_subject"])
        return [sequence] if isinstance(event, OUTCOMES) else [sequence, *self._context.touches(event)]
