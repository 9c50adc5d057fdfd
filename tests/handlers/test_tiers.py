"""Tiers of waiting work: which one takes what, and how much of all that is due together is moved on at once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.callbacks import Callback
from gateways.log.work_queue import WorkQueue
from handlers.tiers import MOVED_AT_ONCE, SLACK_SECONDS, Waits
from handlers.webhook_deliver import LONGEST_PUT_OFF_SECONDS
from handlers.webhook_queue import Queue
from handlers.webhook_tiers import Tiers
from schemas.envelope import Record
from schemas.topics import DELIVER, RETRY, WEBHOOK_DELIVER, WEBHOOK_RETRY
from schemas.webhook_queue import Attempt
from schemas.work import DeliverSend

NOW = datetime.now(UTC)
SEND = DeliverSend("snd_1", "usr_1", "con_1", "smtp", "digest")
ATTEMPT = Attempt(Callback("whd_1", "acc_1", "whk_1", "send.sent", "{}"), 1, NOW)
CAUSE = {"ce_id": "evt_1"}
SCALES = [1.0, 0.1]


@dataclass
class Log:
    """Notes what is appended to which topic; takes nothing further while it is held up."""

    topics: list[str] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(self, topic: str, *_: Any, **__: Any) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.goes_on.wait()
        self.under_way -= 1
        self.topics.append(topic)


@pytest.fixture
def log() -> Any:
    found = Log()
    found.goes_on.set()
    return found


@pytest.mark.parametrize("scale", SCALES)
async def test_a_delivery_that_is_put_off_for_as_long_as_can_be_waits_in_one_tier(log: Any, scale: float) -> None:
    """The moment that has passed since must not have it go round the shortest tier sixty times."""
    due = datetime.now(UTC) + timedelta(seconds=LONGEST_PUT_OFF_SECONDS * scale)
    await Queue(log, scale=scale).put(replace(ATTEMPT, due=due), CAUSE)
    assert log.topics == [WEBHOOK_RETRY[300].name]


@pytest.mark.parametrize("scale", SCALES)
async def test_a_send_that_waits_for_as_long_as_a_tier_waits_in_that(log: Any, scale: float) -> None:
    waits = Waits(WorkQueue(log), scale=scale)
    for seconds in RETRY:
        await waits.put(replace(SEND, due=datetime.now(UTC) + timedelta(seconds=seconds * scale)), CAUSE)
    assert log.topics == [topic.name for topic in RETRY.values()]


@pytest.mark.parametrize("scale", SCALES)
def test_no_tier_is_longer_than_the_time_left_by_more_than_a_little(log: Any, scale: float) -> None:
    queue, waits = Queue(log, scale=scale), Waits(WorkQueue(log), scale=scale)
    for left in range(1, 8000):
        wait = timedelta(seconds=left * scale)
        found = [seconds for seconds, topic in WEBHOOK_RETRY.items() if topic.name == queue.tier(wait)]
        assert found[0] <= max(left + SLACK_SECONDS + 1e-6, min(WEBHOOK_RETRY))
        found = [seconds for seconds, topic in RETRY.items() if topic.name == waits.topic_of("smtp", NOW + wait, NOW)]
        assert found[0] <= max(left + SLACK_SECONDS + 1e-6, min(RETRY))
    assert queue.tier(timedelta(0)) == WEBHOOK_DELIVER.name
    assert waits.topic_of("smtp", NOW, NOW) == DELIVER["smtp"].name


def moving_deliveries(log: Any) -> Callable[[Record], Awaitable[None]]:
    tiers = Tiers(Queue(log))
    return lambda record: tiers.act(ATTEMPT, record)


def moving_sends(log: Any) -> Callable[[Record], Awaitable[None]]:
    waits = Waits(WorkQueue(log))
    return lambda record: waits.act(replace(SEND, due=NOW), record)


@pytest.mark.parametrize(
    ("moving", "tier"), [(moving_deliveries, WEBHOOK_RETRY[5].name), (moving_sends, RETRY[10].name)]
)
async def test_of_very_many_that_are_due_together_a_few_are_moved_on_at_once(moving: Any, tier: str) -> None:
    """The log refuses what comes beyond its limit, and claims and reports of sends stand beside them."""
    log = Log()
    act = moving(log)
    records = [Record(tier, 0, offset, 0, "key", b"", [("ce_id", b"wha_%d" % offset)]) for offset in range(1000)]
    under_way = [asyncio.create_task(act(record)) for record in records]
    for _ in range(10):
        await asyncio.sleep(0)
    assert log.most == MOVED_AT_ONCE
    log.goes_on.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*under_way)
    assert (len(log.topics), log.most) == (1000, MOVED_AT_ONCE)
