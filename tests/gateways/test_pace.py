"""Under load the broker gathers; a record that comes alone is delivered at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gateways.local_servers import Servers
from gateways.log.pace import GATHER_MS, WAIT_MS
from gateways.log.subscriptions import Partition, Subscription, Subscriptions
from schemas.envelope import Record

BUNCHES, BUNCH = 300, 50


class Counting:
    """How many records came with each delivery."""

    def __init__(self) -> None:
        self.deliveries: list[int] = []
        self.subscription: Subscription
        self.ready = asyncio.Event()

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        self.ready.set()

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        pass

    async def take(self, records: Sequence[Record]) -> None:
        self.deliveries.append(len(records))

    async def have(self, records: int) -> None:
        async with asyncio.timeout(20):
            while sum(self.deliveries) < records:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def counting(servers: Servers, prefix: str) -> AsyncIterator[tuple[Counting, AIOKafkaProducer]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(f"{prefix}marks", 1, 1)])
    await admin.close()
    subscriptions, loop = Subscriptions(servers.kafka, prefix=prefix), Counting()
    loop.subscription = subscriptions.subscribe(["marks"], group="counting", consumes=loop)
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka)
    await producer.start()
    await subscriptions.start()
    try:
        async with asyncio.timeout(20):
            await loop.ready.wait()
        yield loop, producer
    finally:
        await subscriptions.stop()
        await producer.stop()


async def test_a_stream_of_records_is_gathered_and_those_that_come_alone_are_not(
    servers: Servers, topic_prefix: str
) -> None:
    async with counting(servers, topic_prefix) as (loop, producer):
        topic = f"{topic_prefix}marks"
        clock = asyncio.get_running_loop().time
        begin = clock()
        for _ in range(BUNCHES):
            await asyncio.gather(*[await producer.send(topic, b"one of many") for _ in range(BUNCH)])
        await loop.have(BUNCHES * BUNCH)
        # Delivered as they come it would be each bunch by itself.
        assert len(loop.deliveries) < 20 + 1.2 * (clock() - begin) * 1000 / GATHER_MS
        await asyncio.sleep(1)  # of quiet
        before = len(loop.deliveries)
        for number in range(1, 6):
            await producer.send_and_wait(topic, b"alone")
            await loop.have(BUNCHES * BUNCH + number)
        assert loop.deliveries[before:] == [1] * 5
        fetcher = loop.subscription.consumer()._fetcher
        assert (fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms) == (1, WAIT_MS)
