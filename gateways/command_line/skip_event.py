"""`main.py skip-event`: an operator's word that projections pass over one event (DESIGN 4, rule 7).

It is said in the log itself, by compare and append, so that every rebuild honours it: a stopped partition goes on as soon
as it reads it.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from domain.outcomes import EventSkipped
from gateways.command_line.failures import NOT_FOUND, Failed
from gateways.log.event_log import EventLog, LogUnavailable
from schemas import events
from schemas.envelope import Record, Source
from schemas.ids import new_id
from schemas.own_records import own_record
from schemas.topics import TOPICS

#: Tries to append before deciders that write at the same time are left alone.
TRIES: Final = 20


async def skip_event(log: EventLog, topic: str, partition: int, position: int, reason: str) -> int:
    """Records that the event at this position is passed over; where that stands in the log.

    Saying it again changes nothing. Raises Failed, where nothing was recorded, and LogUnavailable.
    """
    if topic not in {known.name for known in TOPICS if known.truth}:
        raise Failed(
            f"{topic} is no topic of events: {', '.join(known.name for known in TOPICS if known.truth)}.",
            code=NOT_FOUND,
        )
    partitions = await log.partitions(topic)
    if partition not in partitions:
        raise Failed(f"{topic} has the partitions 0 to {max(partitions)}, and no {partition}.", code=NOT_FOUND)
    skipped = EventSkipped(position, reason)
    for attempt in range(TRIES):
        try:
            said, end = await _already(log, topic, partition, position)
            if said is not None:
                return said
            await _append(log, topic, partition, end, skipped)
        except LogUnavailable:
            if attempt == TRIES - 1:
                raise
        await asyncio.sleep(0.02 * attempt)
    raise Failed(f"Others write to {topic}/{partition} all the time: try again.")


async def _already(log: EventLog, topic: str, partition: int, position: int) -> tuple[int | None, int]:
    """Where it was said that the event is passed over, if it was, and the end of the log."""
    end = (await log.bounds(topic, partition))[1]
    if not 0 <= position < end:
        raise Failed(f"{topic}/{partition} ends at {end}: there is no event at {position}.", code=NOT_FOUND)
    said = None
    end = position
    async for records in log.read_on(topic, partition, position):
        if end == position:
            _check(records[0])
        for record in records:
            if not record.void and said is None and _says(record, position):
                said = record.offset
        end += len(records)
    return said, end


def _check(record: Record) -> None:
    if record.void:
        raise Failed(f"The record at {record.source} is void: every reader passes over it already.")
    if record.header("ce_type").startswith("log."):
        raise Failed(f"The record at {record.source} is about the log itself: no projection applies it.")


def _says(record: Record, position: int) -> bool:
    kind = events.LOG.types[EventSkipped]
    return record.header("ce_type") == kind and events.LOG.decode(kind, record.value).position == position


async def _append(log: EventLog, topic: str, partition: int, end: int, skipped: EventSkipped) -> None:
    """Void where somebody else was first: reading on tells."""
    batch = log.batch()
    source = Source(topic, partition, skipped.position)
    batch.add([own_record(new_id("skp"), skipped, datetime.now(UTC), position=end, source=source)])
    await log.append(topic, partition, batch)
