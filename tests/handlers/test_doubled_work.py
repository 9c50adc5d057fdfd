"""Work that a crash has doubled, between what follows from it and its place: each copy would be followed by copies."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.callbacks import Callback
from domain.delivery import NotProven
from domain.tokens import Secrets
from gateways.log.work_queue import WorkQueue
from handlers import delivery_effect, tiers, webhook_tiers
from handlers.accesses import Accesses
from handlers.deliver import Delivering
from handlers.deliver_parts import Parts
from handlers.effector import Effect, Effector
from handlers.reconcile import Reconciling
from handlers.refresh_parts import AccessToken
from handlers.tiers import Waits
from handlers.webhook_queue import Queue
from schemas.envelope import Headers, Record, first
from schemas.topics import DELIVER, WEBHOOK_DELIVER, WEBHOOK_RETRY
from schemas.webhook_queue import Attempt
from schemas.work import DeliverSend, LookForSend

NOW = datetime.now(UTC)
LOOK = LookForSend("snd_1", "usr_1", "con_1", "gmail", "digest", 1, "<snd_1@mail.test>", 3, NOW, draft="draft")
SEND = DeliverSend("snd_1", "usr_1", "con_1", "smtp", "digest")
ATTEMPT = Attempt(Callback("whd_1", "acc_1", "whk_1", "send.sent", "{}"), 1, NOW)
SCALE = 0.05
CAUSE = {"ce_id": "evt_1"}


@dataclass
class Log:
    """Topics of one partition; what is appended to them stands there as it would be read."""

    topics: dict[str, list[Record]] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)

    async def append(self, topic: str, key: str, value: bytes, headers: Headers, *, lapses: bool) -> None:
        records = self.topics.setdefault(topic, [])
        now = round(datetime.now(UTC).timestamp() * 1000)
        records.append(Record(topic, 0, len(records), now, key, value, headers))

    async def position(self, name: str, topic: str, partition: int) -> int:
        return self.positions.get(topic, 0)

    async def advance(self, name: str, topic: str, partition: int, position: int) -> None:
        self.positions[topic] = position

    def lengths(self) -> dict[str, int]:
        return {topic: len(records) for topic, records in self.topics.items()}

    def ids(self, topic: str) -> list[str]:
        return [first(record.headers)["ce_id"] for record in self.topics.get(topic, [])]


@asynccontextmanager
async def lives(effect: Effect, log: Log, there: Mapping[str, int] | None = None) -> AsyncIterator[Effector]:
    """A worker that keeps no place before it dies, at the end of the block. It sees what is `there`, or all."""
    there = log.lengths() if there is None else there
    loop = Effector(effect, log)
    places = [(topic, 0) for topic in effect.topics]
    await loop.assigned(places)
    async with asyncio.timeout(10):
        while any(loop._shares[place].expected is None for place in places):
            await asyncio.sleep(0)
        for topic in effect.topics:
            await loop.take(log.topics.get(topic, [])[log.positions.get(topic, 0) : there.get(topic, 0)])
        yield loop
    await loop.stop()


async def worked_off(effect: Effect, log: Log, there: Mapping[str, int] | None = None) -> None:
    """One life of a worker, in which it ends all that it sees."""
    async with lives(effect, log, there) as loop:
        while any(share.unfinished for share in loop._shares.values()):
            await asyncio.sleep(0)


@dataclass
class Held:
    connection: str
    secrets: Secrets
    version: int = 1


@dataclass
class World:
    """A provider that knows nothing, a mailbox without room, and all that a look takes beside them."""

    looks: int = 0
    stands: tuple[str, int] = ("sending", 1)
    shows: Any = "nothing_found"
    calls: list[str] = field(default_factory=list)
    waits_for: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def look(self, traces: Any, access: Any, *, last: bool, spends: Any) -> NotProven:
        self.looks += 1
        await self.goes_on.wait()
        return NotProven(self.shows)

    async def take(self, provider: Any, mailbox: Any) -> None:
        self.waits_for += 1

    async def get(self, connection: str) -> Any:
        return Held(connection, Secrets("token", "refresh", None))

    async def access_token(self, connection: str, *, refused: Any = None, held: Any = None) -> AccessToken:
        return AccessToken("token", 1, None)

    async def standing(self, send: str) -> Any:
        return self.stands

    async def address(self, connection: str) -> Any:
        return "ada@mail.test", []

    async def spent(self, provider: Any, mailbox: Any, cost: int) -> None: ...

    async def begin(self) -> Any:
        return self

    def end(self) -> None: ...

    def note(self, connection: str, user: str, call: Any) -> None:
        self.calls.append(call.outcome)


def delivering(world: Any, log: Any) -> Effect:
    waits, accesses = Waits(WorkQueue(log), scale=SCALE), Accesses(world, world)
    parts = Parts(world, world, accesses, {"gmail": world}, world, waits, world, world, world, scale=SCALE)
    return delivery_effect.effect(Delivering(parts, worker="w", timeout=1.0), Reconciling(parts))


async def test_what_is_put_twice_for_one_cause_is_known_to_be_one():
    log: Any = Log()
    for _ in range(2):
        await WorkQueue(log).put("deliver.gmail", LOOK, CAUSE)
        await WorkQueue(log).put("deliver.smtp", SEND, {"ce_id": "evt_2"})
    assert len({*log.ids("deliver.gmail")}) == len({*log.ids("deliver.smtp")}) == 1
    assert log.ids("deliver.gmail") != log.ids("deliver.smtp")


async def test_a_look_that_was_doubled_is_one_look_and_brings_one_next_look():
    log: Any = Log()
    world, topic = World(), DELIVER["gmail"].name
    for _ in range(5):
        await WorkQueue(log).put(topic, replace(LOOK, first=datetime.now(UTC)), CAUSE)
    async with lives(delivering(world, log), log) as loop:
        while not world.looks:
            await asyncio.sleep(0)
        assert loop._shares[topic, 0].position == 0, "the place of the first is not passed before it has ended"
        world.goes_on.set()
        while loop._shares[topic, 0].unfinished:
            await asyncio.sleep(0)
    assert world.looks == 1
    [tier] = {*log.topics} - {topic}
    assert len(log.ids(tier)) == 1


@pytest.mark.parametrize(
    ("stands", "looks"),
    [
        (("sending", 1), 1),
        (("uncertain", 1), 1),
        (("deferred", 0), 1),
        (("sent", 1), 0),
        (("deferred", 1), 0),
        (("sending", 2), 0),
    ],
)
async def test_a_look_that_is_left_of_a_life_before_is_made_only_while_there_is_a_doubt(stands, looks):
    log: Any = Log()
    world, topic = World(stands=stands), DELIVER["gmail"].name
    world.goes_on.set()
    await WorkQueue(log).put(topic, replace(LOOK, first=datetime.now(UTC)), CAUSE)
    await worked_off(delivering(world, log), log)
    assert (world.looks, len({*log.topics} - {topic})) == (looks, looks), "a look brings the next one"


@pytest.mark.parametrize(("shows", "outcome"), [("nothing_found", "ok"), ("unreachable", "failed")])
async def test_a_look_is_a_call_that_the_provider_took_only_where_it_answered(shows, outcome):
    """By one that it took, a connection is restored."""
    log: Any = Log()
    world = World(shows=shows)
    world.goes_on.set()
    await WorkQueue(log).put(DELIVER["gmail"].name, replace(LOOK, first=datetime.now(UTC)), CAUSE)
    await worked_off(delivering(world, log), log)
    assert world.calls == [outcome]


async def test_work_that_waits_for_room_comes_back_once_however_often_its_worker_died():
    """Five lives without a place kept: the same work is let out of its tier five times, and goes back there once."""
    log: Any = Log()
    world, waits = World(), Waits(WorkQueue(log), scale=SCALE)
    topic = DELIVER["smtp"].name
    await WorkQueue(log).put(topic, SEND, CAUSE)
    await worked_off(delivering(world, log), log)
    [tier] = {*log.topics} - {topic}
    log.positions[topic] = 1
    for _ in range(5):
        await worked_off(tiers.effect(waits), log)
    assert (len(log.ids(topic)), len({*log.ids(topic)})) == (6, 2), "what was there, and what has come back"
    await worked_off(delivering(world, log), log)
    assert (world.waits_for, len(log.ids(tier))) == (2, 2)


async def test_a_delivery_that_waits_is_moved_on_as_one_through_all_its_tiers():
    """Each time it is moved on by two lives, of which the first kept no place."""
    log: Any = Log()
    queue = Queue(log, scale=SCALE)
    for _ in range(3):
        await queue.put(replace(ATTEMPT, due=datetime.now(UTC) + timedelta(seconds=0.74)), CAUSE)
    while WEBHOOK_DELIVER.name not in log.topics:
        there = log.lengths()
        for _ in range(2):
            await worked_off(webhook_tiers.effect(queue), log, there)
        log.positions = there
    assert len(log.ids(WEBHOOK_DELIVER.name)) > 1
    assert len({*log.ids(WEBHOOK_DELIVER.name)}) == 1
    assert len(log.ids(WEBHOOK_RETRY[5].name)) > 3, "it has gone round a tier"


async def test_work_that_took_another_way_through_the_tiers_is_the_same_work():
    """A second life begins when it is due: it goes where the first has come to by way of a tier and a half.

    On a machine that is busy the first may take as long; all waits are longer then.
    """
    for scale in (SCALE, 4 * SCALE, 16 * SCALE):
        came = await _came_by_two_lives(scale)
        assert all(len({*ids}) == 1 for ids, _ in came)
        if all(len({*hops}) > 1 for _, hops in came):
            return
    pytest.fail("no other way was taken")


async def _came_by_two_lives(scale: float) -> list[tuple[list[str], list[str]]]:
    """The ids and the hops of what came back to either topic of work."""
    log: Any = Log()
    queue, waits = Queue(log, scale=scale), Waits(WorkQueue(log), scale=scale)
    due = datetime.now(UTC) + timedelta(seconds=15 * scale)
    await queue.put(replace(ATTEMPT, due=due), CAUSE)
    await waits.put(replace(SEND, due=due), CAUSE)
    topics = [WEBHOOK_DELIVER.name, DELIVER["smtp"].name]
    while not {*topics} <= {*log.topics}:
        for effect in webhook_tiers.effect(queue), tiers.effect(waits):
            await worked_off(effect, log)
    for effect in webhook_tiers.effect(queue), tiers.effect(waits):
        await worked_off(effect, log)
    return [(log.ids(topic), [record.header("hops") for record in log.topics[topic]]) for topic in topics]
