"""Prints what happened, as it happens: `python -m docs.consumer BROKER TOPIC GROUP`."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.envelope import is_void


async def follow(broker: str, topic: str, group: str) -> None:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=broker, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        async for record in consumer:
            if not is_void(record.headers, record.offset):
                kind = dict(record.headers)["ce_type"].decode()
                print(record.partition, record.offset, kind, json.dumps(json.loads(record.value)), flush=True)
            await consumer.commit({TopicPartition(record.topic, record.partition): record.offset + 1})


if __name__ == "__main__":
    asyncio.run(follow(*sys.argv[1:4]))
