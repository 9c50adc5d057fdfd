"""The cluster our faults are tried on does what it says: its brokers replicate, and really go, are cut off, and come back."""

import asyncio
import os
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.support.cluster import NODES, Cluster

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.environ.get("FAULTS") != "full", reason="only `make faults` starts three brokers"),
]
MARKS = TopicPartition("marks", 0)


async def with_marks(cluster: Cluster) -> int:
    """Makes the topic that is written to; its leader."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka)
    await admin.start()
    await admin.create_topics([NewTopic("marks", 1, 3)])
    await admin.close()
    await cluster.in_sync("marks")
    leader = await cluster.leader("marks")
    assert leader in NODES
    return leader


async def test_a_partition_outlives_its_killed_leader_and_a_frozen_one(tmp_path):
    async with Cluster(tmp_path) as cluster:
        first = await with_marks(cluster)
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.kafka, enable_idempotence=True, request_timeout_ms=3000, metadata_max_age_ms=2000
        )
        await producer.start()
        assert (await producer.send_and_wait("marks", b"0")).offset == 0

        await cluster.kill(first)
        assert (await asyncio.wait_for(producer.send_and_wait("marks", b"1"), 30)).offset == 1
        await cluster.start(first)
        await cluster.in_sync("marks")

        second = await cluster.leader("marks")
        cluster.freeze(second)
        began = time.monotonic()
        assert (await asyncio.wait_for(producer.send_and_wait("marks", b"2"), 30)).offset == 2
        assert time.monotonic() - began > 1, "a frozen leader acknowledges nothing"
        cluster.thaw(second)
        await producer.stop()


async def test_an_isolated_leader_acknowledges_nothing_and_tells_too_short_an_end(tmp_path):
    """What it says is what a client hears that has not refreshed its metadata since."""
    keeps_believing = {"request_timeout_ms": 3000, "metadata_max_age_ms": 300_000}
    async with Cluster(tmp_path) as cluster:
        leader = await with_marks(cluster)
        reader = AIOKafkaConsumer(
            "marks", bootstrap_servers=cluster.kafka, auto_offset_reset="earliest", **keeps_believing
        )
        producer = AIOKafkaProducer(bootstrap_servers=cluster.kafka, acks="all", **keeps_believing)
        await reader.start()
        await producer.start()
        await producer.send_and_wait("marks", b"0")
        assert await reader.end_offsets([MARKS]) == {MARKS: 1}

        cluster.isolate(leader)
        with pytest.raises(KafkaError):
            await asyncio.wait_for(producer.send_and_wait("marks", b"never"), 20)
        await producer.stop()
        successor = await cluster.another_leader("marks", than=leader)
        async with AIOKafkaProducer(bootstrap_servers=cluster.address(successor), acks="all") as wiser:
            assert [(await wiser.send_and_wait("marks", b"%d" % number)).offset for number in (1, 2, 3)] == [1, 2, 3]
        assert await reader.end_offsets([MARKS]) == {MARKS: 1}, "three records more were acknowledged"

        cluster.heal(leader)
        await cluster.in_sync("marks")
        read = [await asyncio.wait_for(reader.getone(), 30) for _ in range(4)]
        await reader.stop()
        assert [(record.offset, record.value) for record in read] == [(0, b"0"), (1, b"1"), (2, b"2"), (3, b"3")]


async def test_a_killed_and_restarted_broker_is_isolated_still(tmp_path):
    """Nothing gets round the proxies: neither what a broker knows when it starts, nor what it is told later."""
    async with Cluster(tmp_path) as cluster:
        leader = await with_marks(cluster)
        cluster.isolate(leader)
        await cluster.another_leader("marks", than=leader)
        await cluster.kill(leader)
        coming = asyncio.create_task(cluster.start(leader))
        await asyncio.sleep(6)
        assert not coming.done(), "a broker without a controller does not open its door"
        cluster.heal(leader)
        await asyncio.wait_for(coming, 30)
        await cluster.in_sync("marks")
