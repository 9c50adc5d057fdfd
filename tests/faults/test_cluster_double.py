"""The cluster our faults are tried on does what it says: it replicates, and its brokers really go and come back."""

import asyncio
import os
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.cluster import NODES, Cluster

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.environ.get("FAULTS") != "full", reason="only `make faults` starts three brokers"),
]


async def test_a_partition_outlives_its_killed_leader_and_a_frozen_one(tmp_path):
    async with Cluster(tmp_path) as cluster:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka)
        await admin.start()
        await admin.create_topics([NewTopic("marks", 1, 3)])
        await admin.close()
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.kafka, enable_idempotence=True, request_timeout_ms=3000, metadata_max_age_ms=2000
        )
        await producer.start()
        first = await cluster.leader("marks")
        assert first in NODES
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
