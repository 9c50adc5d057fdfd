"""Copies what is valid in one partition into an empty topic: `python -m docs.copy_topic FROM TO TOPIC PARTITION`."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.envelope import is_void


async def copy(source: str, target: str, topic: str, partition: int, copied: str) -> int:
    """How many records were copied; raises RuntimeError where the copy is not the only writer of an empty partition."""
    place, position = TopicPartition(topic, partition), 0
    consumer = AIOKafkaConsumer(bootstrap_servers=source, auto_offset_reset="none", enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=target, acks="all", enable_idempotence=True)
    async with consumer, producer:
        end = (await consumer.end_offsets([place]))[place]
        consumer.assign([place])
        consumer.seek(place, 0)
        while await consumer.position(place) < end:
            record = await consumer.getone()
            if is_void(record.headers, record.offset):
                continue
            headers = [(name, b"%d" % position if name == "position" else value) for name, value in record.headers]
            at = await producer.send_and_wait(copied, record.value, record.key, partition, headers=headers)
            if at.offset != position:
                raise RuntimeError(
                    f"{copied}/{partition}: wanted offset {position}, got {at.offset}: delete it, begin again"
                )
            position += 1
    return position


if __name__ == "__main__":
    print(asyncio.run(copy(*sys.argv[1:4], int(sys.argv[4]), sys.argv[3])))
