"""What a lane says of its inputs where no event says it.

A decision that led to no event (a repeated timer, a late report) stands in the lane's memory only, rightly: whether nothing
follows from a command is known for sure once the log has shown that nothing came before it unseen. The next valid append
shows that, and its `srcpos` counts the decisions before it as well. But where such commands are the last of their partition
no event ever comes, retention removes them, and whoever starts then would find its input begun after what it knows to be
decided: lost, for all it can tell.

So a lane whose decisions have stood like this for a minute, or that is told to end, appends one `log.inputs-advanced`: how
far each input has been decided. It is compared and appended like every event, so its place in the log is the proof. One
stands for any number of decisions, there is none where nothing is unproven, and without events in between there is at most
one an hour: a timer that comes to nothing again and again must not fill a log that is kept for ever.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from domain.outcomes import InputsAdvanced
from handlers.append import compare_and_append
from handlers.context import Context, Log
from handlers.documents import Cut
from handlers.lane import Lane, MovedError
from schemas.envelope import Source, moment
from schemas.ids import new_id
from schemas.own_records import own_record

log = logging.getLogger(__name__)

#: Seconds for which decisions without events may stand unproven.
QUIET_SECONDS: Final = 60.0
#: Seconds between two markers of one lane, unless an event came in between.
APART_SECONDS: Final = 3600.0
#: Seconds that a lane which ends gives its last marker.
LAST_SECONDS: Final = 3.0


class Proves:
    """Has the log prove what the lanes of one context have decided without events."""

    def __init__(self, context: Context, log: Log, save: Callable[[Cut], Awaitable[None]]) -> None:
        self._context = context
        self._log = log
        self._save = save

    @staticmethod
    def due_in(lane: Lane) -> float | None:
        """Seconds until a marker is due, 0 where one is; None where nothing is unproven."""
        if lane.end is None or lane.unproven_since is None:
            return None
        due = lane.unproven_since + QUIET_SECONDS
        if lane.marked_at is not None:
            due = max(due, lane.marked_at + APART_SECONDS)
        return max(0.0, due - asyncio.get_running_loop().time())

    async def when_due(self, lane: Lane) -> None:
        """Appends a marker, with a snapshot behind it; raises MovedError, or what keeps the log from answering."""
        if self.due_in(lane) == 0:
            lane.got_on()
            await self._prove(lane)

    async def at_the_end(self, lane: Lane) -> None:
        """Of a lane that ends with its process. What can't be proven in time is decided again by whoever comes next."""
        if self.due_in(lane) is None:
            return
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._prove(lane)
        except MovedError:
            pass  # somebody else decides here already
        except Exception:
            log.exception("no marker", extra={"context": self._context.name, "partition": lane.partition})

    async def _prove(self, lane: Lane) -> None:
        await compare_and_append(self._log, self._context.events, lane, self._marker(lane))
        lane.marked_at = asyncio.get_running_loop().time()
        lane.prove()
        if lane.saving:
            await lane.saving
        await self._save(lane.documents.cut(lane.proven))

    def _marker(self, lane: Lane) -> Any:
        """Its time is the lane's own: that of the last record it decided."""
        assert lane.end is not None
        source = Source(self._context.events, lane.partition, lane.end)
        marker = InputsAdvanced(dict(lane.next))
        batch = self._log.batch()
        batch.add([own_record(new_id("adv"), marker, moment(lane.now_ms), position=lane.end, source=source)])
        return batch
