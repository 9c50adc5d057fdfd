"""Adoption: making a lane know all that the log says (DESIGN 4, rules 2 and 3).

A lane adopts when it takes a partition over, and whenever it can't know where the log ends: after a batch that landed
elsewhere, or of which nothing was heard. It begins with the snapshot and folds the valid records that follow it.

Before that it makes sure that this is the log, and these are the inputs, that its partition was decided on: log start ≤
next ≤ end must hold for all of them. A leader that has fallen behind looks too short for a while; what stays too short,
or begins too late, has lost records, and then the lane stops for good and says so.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from handlers.context import Context, Log
from handlers.documents import KeepsSnapshots, Key
from handlers.lane import Lane, LaneStoppedError, MovedError
from schemas.envelope import Record, Source, first, milliseconds
from schemas.snapshots import Checkpoint

#: Seconds for which a topic may look other than what was decided from it before the lane stops and says so.
PATIENCE_SECONDS: Final = 30.0
#: Seconds between two looks.
LOOK_SECONDS: Final = 1.0
#: Documents changed by the tail from which a snapshot is written on the way, so that memory stays bounded.
DIRTY: Final = 20_000

OUTCOMES: Final = (CommandFailed, CommandLapsed, CommandUnreadable)


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
        """Raises MovedError (try again), LaneStoppedError, or what keeps the log or the snapshots from answering."""
        lane.documents.clear()
        saved = await self._snapshots.checkpoint(self._context.snapshot, lane.partition) or Checkpoint()
        lane.next, lane.now_ms = dict(saved.inputs), saved.now_ms
        floor = max(lane.floor, saved.end)
        await self._holds(lane, self._context.events, saved.end, floor)
        position = await self._fold_on(lane, saved, floor)
        await self.check_inputs(lane)
        lane.end = lane.floor = position
        lane.prove()

    async def check_inputs(self, lane: Lane) -> None:
        """Raises LaneStoppedError where an input is not the one that was decided on."""
        nothing_decided = not lane.next
        for topic in self._context.inputs:
            if nothing_decided:
                lane.next[topic], _ = await self._log.bounds(topic, lane.partition)
            position = lane.next.setdefault(topic, 0)
            await self._holds(lane, topic, position, position)

    async def _holds(self, lane: Lane, topic: str, lowest: int, highest: int) -> None:
        """Returns once the topic begins at or before `lowest` and ends at or after `highest`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            start, end = await self._log.bounds(topic, lane.partition)
            if start <= lowest and highest <= end:
                return
            if loop.time() > deadline:
                raise LaneStoppedError(
                    f"{topic}/{lane.partition} holds offsets {start} to {end}, but what was decided rests on it from "
                    f"{lowest} up to {highest}: this is not the topic it was decided on. Restore it, or start with an empty "
                    f"Kafka and an empty database."
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
        read = [(record, first(record.headers)) for record in records]
        ours = [(record, headers) for record, headers in read if not headers["ce_type"].startswith("log.")]
        tail = [
            (headers, self._context.vocabulary.decode(headers["ce_type"], record.value)) for record, headers in ours
        ]
        end = await lane.documents.load([key for headers, event in tail for key in self._touched(headers, event)])
        if end is not None and end != saved.end:
            raise MovedError
        for headers, event in tail:
            source = Source.read(headers["srcpos"])
            lane.next[source.topic] = max(lane.next.get(source.topic, 0), source.offset + 1)
            lane.now_ms = max(lane.now_ms, milliseconds(datetime.fromisoformat(headers["ce_time"])))
            fold(self._context, lane, headers["ce_subject"], [event])

    def _touched(self, headers: dict[str, str], event: Any) -> list[Key]:
        sequence = ("sequence", headers["ce_subject"])
        return [sequence] if isinstance(event, OUTCOMES) else [sequence, *self._context.touches(event)]
