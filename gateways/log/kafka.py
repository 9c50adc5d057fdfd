"""How this house talks to Kafka: the settings every client shares, and how a producer is thrown away.

aiokafka's defaults lose or repeat records (acks=1, no idempotence, `latest`), and hang as long as a broker is frozen
(40 s requests, 300 s metadata). What stands here was measured on one broker and on three.
"""

import asyncio
import contextlib
import logging
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.structs import ConsumerRecord

from schemas.envelope import Record
from schemas.topics import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)

#: Seconds an append may be on its way before its producer is thrown away: more than a broker's session and request time-out.
APPEND_LIMIT_SECONDS: Final = 12.0
#: Seconds a gateway waits for an acknowledgement before it says that nothing is promised.
GATEWAY_LIMIT_SECONDS: Final = 8.0
#: Seconds a consumer may take to end.
STOP_SECONDS: Final = 2.0


def client_settings(bootstrap: str) -> dict[str, Any]:
    """What producers and consumers share. `metadata_max_age_ms`: a stale leader is noticed within five seconds."""
    return {
        "bootstrap_servers": [server.strip() for server in bootstrap.split(",")],
        "request_timeout_ms": 5000,
        "metadata_max_age_ms": 5000,
        "retry_backoff_ms": 100,
    }


async def start_producer(bootstrap: str, *, batch_bytes: int) -> AIOKafkaProducer:
    """An idempotent producer whose acknowledgements are promises; raises KafkaConnectionError where no broker answers."""
    producer = AIOKafkaProducer(
        **client_settings(bootstrap),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        max_batch_size=batch_bytes,
        # Rejected here, before a sequence number is spent: one that the broker refuses wedges the producer for good.
        max_request_size=MAX_MESSAGE_BYTES,
        linger_ms=0,
    )
    try:
        await producer.start()
    except BaseException:
        await throw_away(producer)
        raise
    return producer


async def throw_away(producer: AIOKafkaProducer) -> None:
    """Ends a producer at once. `stop()` would flush without limit; what is still on its way may be delivered late.

    Reaches into aiokafka 0.14, which has no public way to give up on a batch that it retries for ever.
    """
    producer._closed = True  # noqa: SLF001 - as stop() does first
    waiting = producer._message_accumulator  # noqa: SLF001 - see above
    # A batch that waits for its next try is in neither of the places where its own callback looks for it.
    again = [batch for batches in waiting._batches.values() for batch in batches if batch.retry_count]  # noqa: SLF001 - see above
    waiting._pending_batches.update(again)  # noqa: SLF001 - see above
    waiting.fail_all(KafkaConnectionError("producer thrown away"))
    sender = producer._sender.sender_task  # noqa: SLF001 - see above
    if sender is not None:
        # Without transactions its own callback fails where the sender ends with an error.
        sender.remove_done_callback(producer._sender._fail_all)  # noqa: SLF001 - see above
        sender.cancel()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await producer.client.close()


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Ends a consumer without a group; one whose broker does not answer is let go of after STOP_SECONDS."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await consumer.stop()
    except (KafkaError, TimeoutError, OSError):
        log.warning("a reader did not stop")


def as_record(found: "ConsumerRecord[bytes, bytes]", topic: str) -> Record:
    """aiokafka's record in our own words, under the topic's unprefixed name."""
    key = found.key.decode("utf-8", "replace") if found.key else ""
    return Record(topic, found.partition, found.offset, found.timestamp, key, found.value or b"", found.headers)
