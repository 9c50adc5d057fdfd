"""A consumer that its group has lost, or that nothing is taken from any more, is replaced; no record is missed by that."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gateways.local_children import Child
from gateways.local_kafka import LocalKafka
from gateways.local_ports import free_port
from gateways.local_servers import CACHE
from gateways.log.subscriptions import Partition, Subscription, Subscriptions
from schemas.envelope import Record
from tests.support.tcp_proxies import TcpProxies, TcpProxy

pytestmark = pytest.mark.faults

SESSION_MS = 2000
REPLACED = "a consumer is replaced"


class Follower:
    """A loop as ours are: its positions are its own, and it seeks to them when partitions are assigned."""

    def __init__(self, positions: "Counter[int]", raises: int = 0) -> None:
        self.positions = positions
        self.raises = raises
        self.held: set[Partition] = set()
        self.taken: list[tuple[int, int]] = []
        self.subscription: Subscription

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        self.held |= set(partitions)
        for topic, partition in partitions:
            self.subscription.seek(topic, partition, self.positions[partition])

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.held -= set(partitions)

    async def take(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.offset == self.positions[record.partition]:
                if self.raises:
                    self.raises -= 1
                    raise LookupError("a fault of our own")
                self.positions[record.partition] += 1
                self.taken.append((record.partition, record.offset))
            else:
                assert record.offset < self.positions[record.partition], "a record was passed over"


@asynccontextmanager
async def following(bootstrap: str, prefix: str, follower: Follower) -> AsyncIterator[Subscriptions]:
    subscriptions = Subscriptions(bootstrap, prefix=prefix, session_timeout_ms=SESSION_MS)
    follower.subscription = subscriptions.subscribe(["marks"], group="followers", consumes=follower)
    await subscriptions.start()
    try:
        yield subscriptions
    finally:
        await subscriptions.stop()


class Marks:
    """A topic of two partitions that is written to."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic
        self.written: list[tuple[int, int]] = []

    async def write(self, count: int = 10) -> None:
        for number in range(count):
            sent = await self._producer.send_and_wait(self._topic, b"x", partition=number % 2)
            self.written.append((sent.partition, sent.offset))

    async def all_taken(self, *followers: Follower, seconds: float = 30) -> None:
        """Returns once everything was taken once, in order."""
        async with asyncio.timeout(seconds):
            while len(taken := [mark for follower in followers for mark in follower.taken]) < len(self.written):
                await asyncio.sleep(0.02)
        assert sorted(taken) == sorted(self.written)


@asynccontextmanager
async def marks(bootstrap: str, prefix: str) -> AsyncIterator[Marks]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(prefix + "marks", 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        yield Marks(producer, prefix + "marks")


async def until(follower: Follower, held: int, *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while len(follower.held) != held:
            await asyncio.sleep(0.02)


async def test_a_subscription_whose_task_has_ended_is_started_again(servers, topic_prefix, caplog):
    follower = Follower(Counter())
    async with (
        marks(servers.kafka, topic_prefix) as written,
        following(servers.kafka, topic_prefix, follower) as subscriptions,
    ):
        await written.write()
        await written.all_taken(follower)
        (subscriber,) = subscriptions.broker.subscribers
        subscriber.tasks[0].cancel()
        await written.write()
        await written.all_taken(follower)
    assert REPLACED in caplog.text


async def test_a_consumer_that_raises_what_is_no_error_of_kafka_is_replaced(servers, topic_prefix, caplog):
    """FastStream by itself starts its task again on the same consumer, as fast as it can."""
    follower = Follower(Counter())
    async with (
        marks(servers.kafka, topic_prefix) as written,
        following(servers.kafka, topic_prefix, follower) as subscriptions,
    ):
        await written.write()
        await written.all_taken(follower)
        (subscriber,) = subscriptions.broker.subscribers
        broken = subscriber.consumer

        async def raises(**_: object) -> None:
            await asyncio.sleep(0.01)
            raise RuntimeError("not an error of Kafka")

        broken.getmany = raises
        await written.write()
        await written.all_taken(follower)
        assert subscriber.consumer is not broken
    assert REPLACED in caplog.text


async def test_a_loop_that_raises_is_given_the_same_records_again(servers, topic_prefix, caplog):
    follower = Follower(Counter(), raises=2)
    async with marks(servers.kafka, topic_prefix) as written, following(servers.kafka, topic_prefix, follower):
        await written.write()
        await written.all_taken(follower)
    assert caplog.text.count("LookupError: a fault of our own") == 2
    assert REPLACED not in caplog.text


class TwoDoors(LocalKafka):
    """A broker with a second listener, which it says is where a proxy listens."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_port(), CACHE.expanduser())
        self.behind, self.proxied = free_port(), free_port()

    def properties(self) -> str:
        own = {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "advertised.listeners": f"PLAINTEXT://{self.address},PROXIED://127.0.0.1:{self.proxied}",
        }
        kept = [line for line in super().properties().splitlines() if not line.startswith("advertised")]
        lines = [
            f"{line},PROXIED://127.0.0.1:{self.behind}" if line.startswith("listeners=") else line for line in kept
        ]
        return "\n".join([*lines, *(f"{name}={value}" for name, value in own.items()), ""])


@asynccontextmanager
async def two_doors(folder: Path) -> AsyncIterator[tuple[TwoDoors, TcpProxy, Child]]:
    broker = TwoDoors(folder / "kafka")
    lock = os.open(folder, os.O_RDONLY)
    async with AsyncExitStack() as stack:
        stack.callback(os.close, lock)
        proxy = stack.enter_context(TcpProxies()).open(("127.0.0.1", broker.proxied), ("127.0.0.1", broker.behind))
        child = await broker.start(lock)
        stack.push_async_callback(child.stop)
        yield broker, proxy, child


def to_the_coordinator(sent: bytes) -> bool:
    """Whether a request is a member's business: OffsetCommit, JoinGroup, Heartbeat, LeaveGroup, SyncGroup."""
    return int.from_bytes(sent[4:6]) in {8, 11, 12, 13, 14}


@pytest.fixture
async def unheard() -> AsyncIterator[None]:
    """A consumer that is left may have a task of aiokafka's own behind it, whose error nobody hears."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(None)
    yield
    loop.set_exception_handler(before)


@pytest.mark.usefixtures("unheard")
async def test_a_member_that_lost_its_coordinator_lets_go_and_joins_again(tmp_path, caplog):
    """Records still reach it, so that it would go on beside whoever has its partitions now."""
    positions: Counter[int] = Counter()
    cut_off, other = Follower(positions), Follower(positions)
    async with (
        two_doors(tmp_path) as (broker, proxy, _),
        marks(broker.address, "") as written,
        following(f"127.0.0.1:{broker.proxied}", "", cut_off),
        following(broker.address, "", other),
    ):
        await until(cut_off, 1)
        await written.write()
        await written.all_taken(cut_off, other)
        assert REPLACED not in caplog.text

        proxy.freeze(to_the_coordinator)
        await until(other, 2)
        assert len(cut_off.held) == 1, "nobody has told it"
        await until(cut_off, 0)
        await written.write()
        await written.all_taken(cut_off, other)

        proxy.thaw()
        await until(cut_off, 1)
        await until(other, 1)
        await written.write()
        await written.all_taken(cut_off, other)
    assert "its group does not know it any more" in [getattr(record, "cause", "") for record in caplog.records]


@pytest.mark.usefixtures("unheard")
async def test_a_member_whose_coordinator_is_frozen_for_long_keeps_its_partitions_and_goes_on(tmp_path, caplog):
    """Nobody can be asked, so nobody else has them; what was written is taken once."""
    follower = Follower(Counter())
    async with (
        two_doors(tmp_path) as (broker, _, child),
        marks(broker.address, "") as written,
        following(broker.address, "", follower),
    ):
        await written.write()
        await written.all_taken(follower)
        os.kill(child.process.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                while "a group can't be asked" not in caplog.text:
                    await asyncio.sleep(0.02)
            assert len(follower.held) == 2
        finally:
            os.kill(child.process.pid, signal.SIGCONT)
        await written.write()
        await written.all_taken(follower)
    assert REPLACED not in caplog.text
