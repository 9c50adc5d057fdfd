"""Where work waits for its time: the topics `retry.*` (DESIGN 4, rule 5).

Work sits in the largest tier that is not longer, or hardly, than the time left, and steps down until it is due; then it goes
back to where it is worked off. What waits holds up nothing: the consumer goes on taking records, and a partition of which
very many wait is paused until the first of them are due.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from domain.connection_events import Provider
from handlers.effector import Effect, same_step
from schemas.envelope import Record, first, moment
from schemas.topics import DELIVER, RETRY
from schemas.work import WORK, DeliverSend, LookForSend, Work

NAME: Final = "retries"
#: Records of one partition that wait in memory; they are small.
WAITING: Final = 5_000
#: By so many seconds, which a scale shortens, a tier may be longer than the time left. It lets go what is due; and what has
#: just missed the tier of its length would go round the next one many times.
SLACK_SECONDS: Final = 5.0
#: Records of all tiers that are moved on at once: very many are due together, and claims and reports share the log.
MOVED_AT_ONCE: Final = 100

Trace = Mapping[str, str]


class QueuesWork(Protocol):
    async def put(self, topic: str, work: Any, trace: Trace) -> None: ...

    async def pass_on(self, topic: str, work: Any, found: Trace) -> None: ...


@dataclass(frozen=True, slots=True)
class Tier:
    """A topic, and for how long work waits in it at the most."""

    topic: str
    seconds: float


class Waits:
    """Puts work where it has to wait, or is worked off. `scale` is the factor on the tiers' own lengths."""

    def __init__(self, queue: QueuesWork, *, scale: float = 1.0) -> None:
        self._queue = queue
        self._tiers = [Tier(topic.name, seconds * scale) for seconds, topic in RETRY.items()]
        self._by_topic = {tier.topic: tier for tier in self._tiers}
        self._slack = SLACK_SECONDS * scale
        self._moving = asyncio.Semaphore(MOVED_AT_ONCE)

    async def put(self, work: Work, trace: Trace) -> None:
        """Raises what keeps the log from taking it."""
        await self._queue.put(self.topic_of(work.provider, work.due, datetime.now(UTC)), work, trace)

    def topic_of(self, provider: Provider, due: datetime | None, now: datetime) -> str:
        """Where work that is due then stands in the meantime."""
        left = (due - now).total_seconds() if due else 0.0
        if left <= 0:
            return DELIVER[provider].name
        # What is due sooner than the shortest tier is long waits there for that time only.
        return next((tier.topic for tier in self._tiers if tier.seconds <= left + self._slack), self._tiers[-1].topic)

    def released_at(self, work: Work, record: Record) -> datetime:
        """When the record leaves the tier it stands in."""
        stepped = moment(record.timestamp_ms) + timedelta(seconds=self._by_topic[record.topic].seconds)
        return min(work.due or stepped, stepped)

    async def act(self, work: Work, record: Record) -> None:
        """Waits until the record may leave its tier, and passes it on."""
        await until(self.released_at(work, record))
        async with self._moving:
            topic = self.topic_of(work.provider, work.due, datetime.now(UTC))
            await self._queue.pass_on(topic, work, first(record.headers))


def left_until(at: datetime) -> timedelta:
    """Time that is left; nothing, or less, where it is past."""
    return at - datetime.now(UTC)


async def until(at: datetime) -> None:
    """Returns when it is time."""
    while (seconds := left_until(at).total_seconds()) > 0:  # noqa: ASYNC110 - the loop's clock may be a moment ahead
        await asyncio.sleep(seconds)


def trace_of(record: Record) -> Trace:
    """What goes on from one record to those that follow from it."""
    return first(record.headers)


def effect(waits: Waits) -> Effect:
    """Keeps waiting work, in all tiers."""
    return Effect(
        NAME,
        tuple(topic.name for topic in RETRY.values()),
        WORK,
        (DeliverSend, LookForSend),
        waits.act,
        concurrency=2 * WAITING,
        width=2 * WAITING,
        unfinished=WAITING,
        truth=False,
        once=same_step,
    )
