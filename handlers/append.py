"""Compare and append: a batch is valid only at the offset where its lane knows the log to end (DESIGN 4, rule 2)."""

from typing import Any

from handlers.context import Log
from handlers.lane import Lane, MovedError


async def compare_and_append(log: Log, topic: str, lane: Lane, batch: Any) -> None:
    """Returns once the batch stands where it had to, with `lane.end` behind it.

    Raises MovedError where it stands elsewhere, and so is void, or what kept the log from answering. In both cases, and
    until it is acknowledged, `lane.end` is None: we do not know where the log ends.
    """
    expected, lane.end = lane.end, None
    offset = await log.append(topic, lane.partition, batch)
    if expected is None or offset != expected:
        if offset >= 0:
            lane.floor = max(lane.floor, offset + len(batch))
        raise MovedError
    lane.end = lane.floor = expected + len(batch)
