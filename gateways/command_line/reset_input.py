"""`main.py reset-input`: an operator's word that what was removed from an input before it was decided be passed over.

A decider stops where its input begins after what is to be decided next: acknowledged records are missing, and only a person
can say that they won't come back. It is said in the log itself, by compare and append, beside deciders that are alive; they
fold it like everything else, and so does every later one.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from domain.outcomes import InputReset
from gateways.command_line.failures import NOT_FOUND, USAGE, Failed
from gateways.decided_inputs import decided_inputs
from gateways.log.event_log import EventLog, LogUnavailable
from gateways.stores.postgres import Pool
from schemas.envelope import Source
from schemas.ids import new_id
from schemas.own_records import own_record
from schemas.topics import DECIDED_IN

#: Tries to append before deciders that write at the same time are left alone.
TRIES: Final = 20


async def reset_input(log: EventLog, pool: Pool, topic: str, partition: int, reason: str) -> InputReset:
    """What was said. Raises Failed, where nothing is missing from the input or nothing was said, and LogUnavailable."""
    if topic not in DECIDED_IN:
        raise Failed(f"{topic} is no input of a decider: {', '.join(DECIDED_IN)}.", code=USAGE)
    if partition not in await log.partitions(DECIDED_IN[topic]):
        raise Failed(f"{topic} has no partition {partition}.", code=NOT_FOUND)
    said: InputReset | None = None
    for attempt in range(TRIES):
        try:
            inputs, end = await decided_inputs(log, pool, DECIDED_IN[topic], partition)
            position = inputs.get(topic, 0)
            start, _ = await log.bounds(topic, partition)
            if said is not None and position >= said.to_offset:
                return said
            if start <= position:
                raise Failed(
                    f"Nothing is missing: {topic}/{partition} begins at {start}, and {position} is to be decided next."
                )
            said = InputReset(topic, position, start, "operator", reason)
            await _append(log, partition, end, said)
        except LogUnavailable:
            if attempt == TRIES - 1:
                raise
        await asyncio.sleep(0.02 * attempt)
    raise Failed(f"Others write to {DECIDED_IN[topic]}/{partition} all the time: try again.")


async def _append(log: EventLog, partition: int, end: int, said: InputReset) -> None:
    """Void where somebody else was first: reading on tells."""
    truth = DECIDED_IN[said.topic]
    batch = log.batch()
    source = Source(truth, partition, end)
    batch.add([own_record(new_id("rst"), said, datetime.now(UTC), position=end, source=source)])
    await log.append(truth, partition, batch)
