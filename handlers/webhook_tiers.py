"""Lets deliveries wait for their time, in the topics `webhook.retry.*`.

What has waited as long as its tier is long, or is due, goes to `webhook.deliver` or to the tier that fits the time left; a
wait that is longer than the longest tier goes round it again. What waits holds up nothing: see `tiers.py`, which does the
same for sends.
"""

import asyncio
from datetime import datetime
from typing import Final

from handlers.effector import Effect, same_step
from handlers.tiers import MOVED_AT_ONCE, WAITING, until
from handlers.webhook_queue import Queue
from schemas.envelope import Record, first, moment
from schemas.topics import WEBHOOK_RETRY
from schemas.webhook_queue import QUEUE, Attempt

NAME: Final = "webhook-retries"
SECONDS: Final = {topic.name: seconds for seconds, topic in WEBHOOK_RETRY.items()}


class Tiers:
    """All of them."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._moving = asyncio.Semaphore(MOVED_AT_ONCE)

    async def act(self, work: Attempt, record: Record) -> None:
        """Waits until the record may leave its tier, and moves it on."""
        await until(self._released_at(work, record))
        async with self._moving:
            await self.move_on(work, record)

    async def move_on(self, work: Attempt, record: Record) -> None:
        await self._queue.pass_on(work, first(record.headers))

    def _released_at(self, work: Attempt, record: Record) -> datetime:
        return min(work.due, moment(record.timestamp_ms) + self._queue.length(SECONDS[record.topic]))


def effect(queue: Queue) -> Effect:
    """Keeps waiting attempts, in all tiers."""
    return Effect(
        NAME,
        tuple(SECONDS),
        QUEUE,
        Attempt,
        Tiers(queue).act,
        concurrency=2 * WAITING,
        width=2 * WAITING,
        unfinished=WAITING,
        truth=False,
        once=same_step,
    )
