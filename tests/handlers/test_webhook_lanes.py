"""URLs that sends bring along share the lane of their account, and a host that hangs holds up no other host in it.

What a receiver that hangs leaves no turn for is given up in time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from domain.callbacks import Answer, Callback, CallbackDeferred, CallbackRequested, CallbackResent, Target
from handlers import webhook_deliver
from handlers.effector import Effector
from handlers.webhook_deliver import (
    IN_FLIGHT,
    LONGEST_PUT_OFF_SECONDS,
    OF_ACCOUNT,
    OF_HOST,
    WAITING,
    Delivers,
)
from handlers.webhook_queue import Waits
from schemas.envelope import Record, command_headers
from schemas.topics import WEBHOOK_DELIVER
from schemas.vocabulary import encode
from schemas.webhook_queue import QUEUE, Attempt

SCALE = 0.1
TOPIC = WEBHOOK_DELIVER.name


@dataclass
class World:
    """Hosts, what they were asked, and what was put off or reported. A host that is in `hangs` answers once it is let go, and
    by default too late. `refused`: why nobody is to be asked.
    """

    hangs: dict[str, asyncio.Event] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    now: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    put_back: list[Attempt] = field(default_factory=list)
    reported: list[Any] = field(default_factory=list)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    took_ms: int = 1
    in_the_end: int | None = None
    refused: Any = None

    async def target(self, callback: Callback) -> Target:
        if self.refused:
            return Target(refused=self.refused)
        return Target(f"https://{callback.body}/hook", callback.account, (1,), 0)

    async def post(self, target: Target, callback: Callback, trace: Any) -> Answer:
        host = callback.body
        self.asked.append(callback.delivery)
        self.now[host] = self.now.get(host, 0) + 1
        self.most[host] = max(self.most.get(host, 0), self.now[host])
        try:
            if host not in self.hangs:
                await asyncio.sleep(0)
                return Answer(1, 204)
            await self.hangs[host].wait()
            return Answer(self.took_ms, self.in_the_end, None if self.in_the_end else "timed_out")
        finally:
            self.now[host] -= 1

    async def put(self, work: Attempt, trace: Any) -> None:
        self.put_back.append(work)

    async def command(self, topic: str, key: str, command: Any, **_: Any) -> None:
        self.reported.append(command)

    def attempted(self, outcome: str, seconds: float) -> None: ...

    def put_off(self) -> None: ...

    async def position(self, name: str, topic: str, partition: int) -> int:
        return self.positions.get((topic, partition), 0)

    async def advance(self, name: str, topic: str, partition: int, position: int) -> None:
        self.positions[topic, partition] = position

    async def has_asked(self, *deliveries: str) -> None:
        async with asyncio.timeout(10):
            while not set(deliveries) <= set(self.asked):
                await asyncio.sleep(0)


@asynccontextmanager
async def delivering(world: World) -> AsyncIterator[Effector]:
    delivers = Delivers(world, world, world, world, world, scale=SCALE)  # type: ignore[arg-type]  # of the queue it is what `act` asks for
    loop = Effector(webhook_deliver.effect(delivers), world)
    await loop.assigned([(TOPIC, 0)])
    async with asyncio.timeout(10):
        while loop._shares[TOPIC, 0].expected is None:
            await asyncio.sleep(0)
    yield loop
    for event in world.hangs.values():
        event.set()
    await loop.stop()


class Work:
    """Records, one after the other."""

    def __init__(self) -> None:
        self.offset = 0

    def to(self, host: str, count: int = 1, *, endpoint: str | None = None) -> list[Record]:
        return [self._record(host, endpoint) for _ in range(count)]

    def _record(self, host: str, endpoint: str | None) -> Record:
        delivery = f"{host}/{self.offset}"
        callback = Callback(delivery, "acc_1", endpoint, "send.sent", host)
        headers = command_headers(
            command_id=delivery, kind=QUEUE.types[Attempt], subject=delivery, at=datetime.now(UTC), trace={}
        )
        found = Record(TOPIC, 0, self.offset, 0, callback.key, encode(Attempt(callback, 1, datetime.now(UTC))), headers)
        self.offset += 1
        return found


async def test_hosts_of_which_every_attempt_hangs_hold_up_no_other_of_their_account():
    """Before anything is known of them, and once they are known to fail."""
    work, hung = Work(), [f"hung-{number}.test" for number in range(OF_ACCOUNT // (IN_FLIGHT + OF_HOST) - 1)]
    world = World({host: asyncio.Event() for host in hung})
    async with delivering(world) as loop:
        for host in hung:
            await loop.take(work.to(host, (WAITING // len(hung)) - 1))
        well = work.to("well.test", 3)
        await loop.take(well)
        await world.has_asked(*(record_of(one) for one in well))
        assert all(world.most[host] == IN_FLIGHT for host in hung)
        for event in world.hangs.values():
            event.set()
            event.clear()
        async with asyncio.timeout(10):
            while len(world.reported) < IN_FLIGHT * len(hung):
                await asyncio.sleep(0)
        again = [record for host in hung for record in work.to(host, 4)] + work.to("well.test", 2)
        before = {host: world.now[host] for host in hung}
        await loop.take(again)
        await world.has_asked(*(record_of(one) for one in again[-2:]))
        assert all(before[host] <= 1 and world.now[host] <= 1 for host in hung), (
            "one that fails is asked once at a time"
        )
        assert world.put_back, "what can't be tried waits elsewhere"


async def test_a_host_that_is_well_gets_a_heap_by_and_by_and_none_of_it_is_lost():
    """What finds no place is put off; all the rest is delivered, no more than a few at once."""
    work, world = Work(), World()
    async with delivering(world) as loop:
        heap = work.to("well.test", WAITING)
        await loop.take(heap)
        async with asyncio.timeout(10):
            while len(world.reported) + len(world.put_back) < len(heap):
                await asyncio.sleep(0)
        assert world.most["well.test"] <= IN_FLIGHT
        assert len(set(world.asked)) == len(world.asked) == len(world.reported)
        endpoint = work.to("registered.test", 50, endpoint="whk_1")
        put_back = len(world.put_back)
        await loop.take(endpoint)
        await world.has_asked(*(record_of(one) for one in endpoint))
        assert world.most["registered.test"] <= IN_FLIGHT
        assert len(world.put_back) == put_back, "the lane of an endpoint is as wide as it may be asked"


@pytest.mark.parametrize(("took_ms", "first", "apart"), [(2, 0.5, 0.02), (1_000, 2.0, 2.0), (15_000, 30.0, 30.0)])
async def test_what_comes_for_one_in_trouble_comes_back_one_by_one(took_ms, first, apart):
    """However many failed at once: who answers soon that it fails is asked again soon, and nothing comes in vain."""
    work, world = Work(), World({"ill.test": asyncio.Event()}, took_ms=took_ms)
    async with delivering(world) as loop:
        await loop.take(work.to("ill.test", IN_FLIGHT, endpoint="whk_1"))
        async with asyncio.timeout(10):
            while world.now.get("ill.test") != IN_FLIGHT:
                await asyncio.sleep(0)
            world.hangs["ill.test"].set()
            while len(world.reported) < IN_FLIGHT:
                await asyncio.sleep(0)
            world.hangs["ill.test"].clear()
            begun = datetime.now(UTC)
            await loop.take(work.to("ill.test", 20, endpoint="whk_1"))
            while len(world.put_back) < 19:
                await asyncio.sleep(0)
    waits = sorted((one.due - begun).total_seconds() for one in world.put_back)
    most = LONGEST_PUT_OFF_SECONDS * SCALE
    assert first <= waits[0] <= first + 1, "a second is what a busy machine takes for all of it"
    assert waits[-1] <= most + 1
    assert all(after - one >= 0.9 * apart for one, after in pairwise(waits) if after < most)


# ── when the time for all attempts is over ────────────────────────────────────────────────────────────────────────────

LONG_AGO = timedelta(days=4)


@asynccontextmanager
async def in_trouble(world: World, work: Work, *, endpoint: str | None) -> AsyncIterator[Delivers]:
    """With a receiver, `ill.test`, that has just failed, and has another attempt hanging."""
    world.hangs["ill.test"] = asyncio.Event()
    delivers = Delivers(world, world, world, world, world)  # type: ignore[arg-type]  # of the queue it is what `act` asks for
    hanging: list[asyncio.Task[None]] = []
    for number in range(2):
        hanging.append(asyncio.create_task(delivers.act(*read(work.to("ill.test", endpoint=endpoint)[0]))))
        async with asyncio.timeout(10):
            while world.now.get("ill.test") != 1:
                await asyncio.sleep(0)
        if number == 0:
            world.hangs["ill.test"].set()
            await hanging[0]
            world.hangs["ill.test"].clear()
    world.reported.clear()
    yield delivers
    world.hangs["ill.test"].set()
    await asyncio.gather(*hanging)


def read(record: Record, **more: Any) -> tuple[Attempt, Record]:
    """The attempt that a record holds, with these fields, and the record."""
    attempt: Attempt = QUEUE.decode(QUEUE.types[Attempt], record.value)
    return replace(attempt, **more), record


@pytest.mark.parametrize("endpoint", ["whk_1", None])
@pytest.mark.parametrize("takes", ["act", "put_off"])
async def test_what_a_failing_receiver_has_not_taken_for_too_long_is_reported_and_not_put_off(takes, endpoint):
    """In its turn, and where too many wait for theirs; also of a URL that is no endpoint, which can't be disabled."""
    work, world = Work(), World()
    async with in_trouble(world, work, endpoint=endpoint) as delivers:
        now = datetime.now(UTC)
        for attempt in (1, 3):
            old, record = read(
                work.to("ill.test", endpoint=endpoint)[0], attempt=attempt, since=now - LONG_AGO, due=now
            )
            await getattr(delivers, takes)(old, record)
            [report] = world.reported
            assert (report.delivery, report.attempt) == (old.callback.delivery, attempt)
            assert (report.status, report.error, report.took_ms) == (None, "expired", 0)
            world.reported.clear()
        assert world.put_back == []
        young, record = read(work.to("ill.test", endpoint=endpoint)[0], since=now)
        await getattr(delivers, takes)(young, record)
        unsaid, record = read(work.to("ill.test", endpoint=endpoint)[0], since=None)
        await getattr(delivers, takes)(unsaid, record)
        assert world.reported == []
        [first, second] = world.put_back
        assert first == replace(young, due=first.due), "its age stays what it was"
        assert now <= second.since <= datetime.now(UTC), "one of an earlier version begins to age"


async def test_what_is_to_be_tried_bears_from_when_on_its_age_counts():
    work, world = Work(), World()
    [record] = work.to("ill.test")
    callback, since = read(record)[0].callback, datetime.now(UTC) - LONG_AGO
    for event in (
        CallbackRequested(callback, since),
        CallbackDeferred(callback, 1, since, 7, datetime.now(UTC), 500, "refused", since),
        CallbackResent(callback, 2, "key_1", since),
    ):
        await Waits(world).act(event, record)  # type: ignore[arg-type]  # of the queue it is what `act` asks for
    assert [(one.attempt, one.since) for one in world.put_back] == [(1, since), (2, since), (2, since)]


async def test_what_is_old_is_tried_where_its_receiver_is_well():
    """However late: it may be that no worker was there. What finds no room waits, as ever."""
    work, world = Work(), World({"well.test": asyncio.Event()}, in_the_end=204)
    delivers = Delivers(world, world, world, world, world)  # type: ignore[arg-type]  # of the queue it is what `act` asks for
    since = datetime.now(UTC) - LONG_AGO
    taken = [read(record, since=since) for record in work.to("well.test", IN_FLIGHT + OF_HOST + 1)]
    under_way = [asyncio.create_task(delivers.act(*one)) for one in taken]
    await under_way[-1]
    assert [one.callback for one in world.put_back] == [taken[-1][0].callback]
    world.hangs["well.test"].set()
    async with asyncio.timeout(10):
        await asyncio.gather(*under_way)
    assert [one.status for one in world.reported] == [204] * (IN_FLIGHT + OF_HOST)


async def test_what_waits_for_an_endpoint_that_was_disabled_ends_and_is_no_reason_against_it_later():
    """Neither does it go on waiting, nor is it given up once the endpoint is enabled again for what it was like before."""
    work, world = Work(), World()
    async with in_trouble(world, work, endpoint="whk_1") as delivers:
        since = datetime.now(UTC) - LONG_AGO
        world.refused = "endpoint_disabled"
        await delivers.act(*read(work.to("ill.test", endpoint="whk_1")[0], since=since))
        [report] = world.reported
        assert (report.error, world.put_back) == ("endpoint_disabled", [])
    await delivers.act(*read(work.to("ill.test", endpoint="whk_1")[0], since=since))
    world.refused = None
    world.reported.clear()
    world.hangs["ill.test"] = asyncio.Event()
    later = [
        asyncio.create_task(delivers.act(*read(record, since=since)))
        for record in work.to("ill.test", IN_FLIGHT, endpoint="whk_1")
    ]
    async with asyncio.timeout(10):
        while world.now["ill.test"] < IN_FLIGHT:
            assert not world.reported
            await asyncio.sleep(0)
    world.hangs.pop("ill.test").set()
    await asyncio.gather(*later)


def record_of(record: Record) -> str:
    """The id of the delivery that a record is about."""
    attempt: Attempt = QUEUE.decode(QUEUE.types[Attempt], record.value)
    return attempt.callback.delivery
