"""Mail that is slow to read holds up neither commands nor other partitions, nor itself; and what waits for it is bounded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.mailbox_commands import ReadMessage, ReceiveMail
from domain.mailbox_events import CommandRefused, MessageRejected
from gateways.log.dead_letters import DeadLetters
from gateways.log.subscriptions import Subscription, Subscriptions
from gateways.stores.snapshots import Snapshots
from handlers import decider, lane, mailboxes
from handlers.decider import Decider
from schemas import commands
from schemas.envelope import Record, command_headers, first
from schemas.vocabulary import encode
from tests.faults.installation import COMMANDS, EVENTS, MAIL, Installation, installed
from tests.support.mailbox_words import mail
from tests.support.waiting import until

#: A command that is refused.
NOBODYS = ReadMessage("mbx_nobodys", "msg_1")
NOBODYS_HEADERS = command_headers(
    command_id="cmd_1", kind=commands.MAILBOX.type_of(NOBODYS), subject=NOBODYS.mailbox, at=datetime.now(UTC)
)


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path):
    async with installed(servers, database, topic_prefix, tmp_path, partitions=2) as house:
        yield house


@dataclass
class OneSlowChild:
    """Reads the mails of everybody one after the other, so many seconds each; `open` is where it gets on at all."""

    seconds: float = 0.0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    read: int = 0

    async def __call__(self, records: Sequence[Record]) -> list[ReceiveMail]:
        return await asyncio.gather(*[self._read(record) for record in records])

    async def _read(self, record: Record) -> ReceiveMail:
        await self.open.wait()
        async with self.turn:
            await asyncio.sleep(self.seconds)
        self.read += 1
        return mail(f"msg_{record.partition}_{record.offset}", "mbx_nobodys", record.key)


@dataclass
class Running:
    """A decider, its consumer, and how many records of each kind it has decided; `most` is what ever waited in a queue."""

    decider: Decider
    subscription: Subscription
    mails: int = 0
    commands: int = 0
    most: int = 0

    def decided(self, context: str, event: Any) -> None:
        self.mails += isinstance(event, MessageRejected)
        self.commands += isinstance(event, CommandRefused)

    async def take(self, records: Sequence[Record]) -> None:
        await Decider.take(self.decider, records)
        self.most = max(self.most, *[self.waiting(number) for number in self.decider.lanes], 0)

    def waiting(self, partition: int) -> int:
        queue = self.decider.lanes[partition].queues.get(MAIL, ())
        return sum(len(chunk.records) for chunk in queue)

    @property
    def paused(self) -> set[tuple[str, int]]:
        consumer = self.subscription.consumer()
        assert consumer is not None
        return {(place.topic.rpartition("mail.")[2], place.partition) for place in consumer.paused()}


@asynccontextmanager
async def running(house: Installation, reader: Any, *, max_records: int = 500) -> AsyncIterator[Running]:
    """The mailbox decider as the role `work` runs it, but for its reader of mails."""
    subscriptions = Subscriptions(house.settings.kafka, prefix=house.prefix)
    context = mailboxes.context(reader)
    loop = Decider(context, house.log, Snapshots(house.pool), DeadLetters(house.command_log))
    loop.subscription = subscription = subscriptions.subscribe(
        list(context.inputs), group="decider", consumes=loop, max_records=max_records
    )
    found = Running(loop, subscription)
    loop.on_decided = found.decided
    loop.take = found.take  # type: ignore[method-assign] # looks on, and hands on as it came
    await subscriptions.start()
    try:
        yield found
    finally:
        await loop.stop()
        await subscriptions.stop()


async def flood(house: Installation, mails: int, *, partition: int = 0) -> None:
    for number in range(mails):
        headers = [("ce_id", f"msg_{partition}_{number}".encode())]
        await house.producer.send(house.prefix + MAIL, b"x", key=b"acc_1", headers=headers, partition=partition)
    await house.producer.flush()


async def comes_true(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    async def answer() -> bool:
        return holds()

    await until(answer, seconds=seconds)


async def decided_offsets(house: Installation, partition: int) -> list[int]:
    """Of `mail.raw`, in the order of the log."""
    sources = [first(record.headers).get("srcpos", "") for record in await house.records(EVENTS) if not record.void]
    return [int(source.rpartition("/")[2]) for source in sources if source.startswith(f"{MAIL}/{partition}/")]


async def test_mail_that_takes_longer_than_a_lane_may_hang_gets_through(house, monkeypatch):
    monkeypatch.setattr(decider, "HANGS_SECONDS", 1.0)
    reader = OneSlowChild(seconds=0.01)
    reader.open.set()
    await flood(house, 320)
    async with running(house, reader) as work:
        await comes_true(lambda: 0 in work.decider.lanes)
        began_with = work.decider.lanes[0]
        await comes_true(lambda: work.mails == 320)
        assert work.decider.lanes[0] is began_with
    assert await decided_offsets(house, 0) == list(range(320))


async def test_a_partition_whose_mail_waits_for_that_of_another_does_not_hang(house, monkeypatch):
    """They share the parser: nothing of its own is read for longer than a lane may hang."""
    monkeypatch.setattr(decider, "HANGS_SECONDS", 1.0)
    reader = OneSlowChild(seconds=0.01)
    await flood(house, 320)
    async with running(house, reader) as work:
        await comes_true(lambda: 0 in work.decider.lanes and work.waiting(0) == 320)
        began_with = dict(work.decider.lanes)
        await flood(house, 5, partition=1)
        await comes_true(lambda: work.waiting(1) == 5)
        reader.open.set()
        await comes_true(lambda: work.mails == 325)
        assert work.decider.lanes == began_with
    assert await decided_offsets(house, 1) == list(range(5))


@pytest.mark.parametrize("partition", [0, 1], ids=["of the same partition", "of another partition"])
async def test_a_command_is_decided_before_the_mail_that_waits(house, partition):
    reader = OneSlowChild(seconds=0.005)
    reader.open.set()
    await flood(house, 4000, partition=partition)
    async with running(house, reader) as work:
        await comes_true(lambda: work.mails > 100)
        await house.put(COMMANDS, encode(NOBODYS), NOBODYS_HEADERS, key=b"acc_1", partition=0)
        await comes_true(lambda: work.commands == 1)
        assert work.mails < 1000


async def test_what_waits_is_bounded_and_goes_on_in_order(house, monkeypatch):
    monkeypatch.setattr(lane, "QUEUE", 60)
    reader = OneSlowChild()
    await flood(house, 1000)
    async with running(house, reader, max_records=30) as work:
        await comes_true(lambda: work.paused == {("raw", 0)})
        reader.open.set()
        await comes_true(lambda: work.mails == 1000)
        assert work.most <= 60 + 30
        await comes_true(lambda: work.paused == set())
    assert await decided_offsets(house, 0) == list(range(1000))


async def test_the_successor_of_a_lane_that_hung_is_given_what_was_held_back(house, monkeypatch):
    monkeypatch.setattr(decider, "HANGS_SECONDS", 1.0)
    monkeypatch.setattr(lane, "QUEUE", 60)
    reader = OneSlowChild()
    await flood(house, 500)
    async with running(house, reader, max_records=30) as work:
        await comes_true(lambda: work.paused == {("raw", 0)})
        hanging = work.decider.lanes[0]
        await comes_true(lambda: work.decider.lanes[0] is not hanging)
        reader.open.set()
        await comes_true(lambda: work.mails == 500)
    assert await decided_offsets(house, 0) == list(range(500))


async def test_what_was_held_back_goes_on_after_a_rebalance(house, monkeypatch):
    monkeypatch.setattr(lane, "QUEUE", 60)
    reader = OneSlowChild()
    for partition in (0, 1):
        await flood(house, 300, partition=partition)
    async with running(house, reader, max_records=30) as one:
        await comes_true(lambda: one.paused == {("raw", 0), ("raw", 1)})
        async with running(house, reader, max_records=30) as two:
            await comes_true(lambda: len(one.paused) == len(two.paused) == 1)
            reader.open.set()
            await comes_true(lambda: one.mails == two.mails == 300)
    for partition in (0, 1):
        assert await decided_offsets(house, partition) == list(range(300))


async def test_a_consumer_that_begins_at_the_earliest_again_does_not_have_all_of_it_read_again(house, monkeypatch):
    """As aiokafka does where a leader that has fallen behind does not know the offset that is asked for."""
    monkeypatch.setattr(lane, "QUEUE", 60)
    reader = OneSlowChild()
    reader.open.set()
    await flood(house, 1000)
    async with running(house, reader, max_records=30) as work:
        await comes_true(lambda: work.mails == 1000)
        before = reader.read
        assert work.subscription.seek(MAIL, 0, 0)
        await flood(house, 1)
        await comes_true(lambda: work.mails == 1001)
        assert reader.read - before < 300
    assert await decided_offsets(house, 0) == list(range(1001))
