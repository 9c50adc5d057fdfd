"""FastStream as our loops use it: raw records in batches over several partitions, positions that are our own.

Group offsets are committed at once (`ACK_FIRST`) and serve lag tools only: every loop seeks to the position that its own
state tells. The settings are those that were found to matter: an `async` decoder (a sync one runs in a thread for each
batch), `apply_types=False`, one hour of `batch_timeout_ms` (FastStream sleeps that time again after an empty poll), and the
range assignor, which keeps the partitions of one number together.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER

from gateways.log.kafka import as_record, client_settings
from schemas.envelope import Record

log = logging.getLogger(__name__)

#: Seconds between two batches below which a loop counts as busy, and for which it then gathers.
BUSY_SECONDS: Final = 0.008
GATHER_SECONDS: Final = 0.005

#: Seconds that consumers get to end what they do and to leave their groups.
STOP_SECONDS: Final = 10.0

Partition = tuple[str, int]


class Consumes(Protocol):
    """What a loop does with a subscription. Nothing it raises is seen by anybody: it deals with its own errors."""

    async def assigned(self, partitions: Sequence[Partition]) -> None: ...

    async def revoked(self, partitions: Sequence[Partition]) -> None: ...

    async def take(self, records: Sequence[Record]) -> None: ...


class Subscription(ConsumerRebalanceListener):
    """One consumer group member; partitions go by (unprefixed topic, number)."""

    def __init__(self, consumes: Consumes, prefix: str) -> None:
        self._consumes = consumes
        self._prefix = prefix
        self.consumer: Callable[[], AIOKafkaConsumer | None] = lambda: None

    def seek(self, topic: str, partition: int, offset: int) -> bool:
        """Goes on from this offset; False where the partition isn't ours (any more)."""
        consumer = self.consumer()
        if consumer is None:
            return False
        try:
            consumer.seek(TopicPartition(self._prefix + topic, partition), offset)
        except IllegalStateError:
            return False
        return True

    def end(self, topic: str, partition: int) -> int | None:
        """Where the partition ended when it was last fetched from."""
        consumer = self.consumer()
        if consumer is None:
            return None
        try:
            return cast("int | None", consumer.highwater(TopicPartition(self._prefix + topic, partition)))
        except (IllegalStateError, AssertionError):
            return None

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        await self._consumes.assigned(self._ours(assigned))

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        await self._consumes.revoked(self._ours(revoked))

    def _ours(self, partitions: list[TopicPartition]) -> list[Partition]:
        return sorted((tp.topic.removeprefix(self._prefix), tp.partition) for tp in partitions)


class Subscriptions:
    """The one FastStream broker of a process, and every loop's place on it."""

    def __init__(self, bootstrap: str, *, prefix: str = "", session_timeout_ms: int = 6000) -> None:
        self._prefix = prefix
        self._session_timeout_ms = session_timeout_ms
        self.broker = KafkaBroker(
            client_settings(bootstrap)["bootstrap_servers"],
            # More than a session: a member that joins waits until the group has given up on one that died.
            request_timeout_ms=self._session_timeout_ms + 1000,
            metadata_max_age_ms=5000,
            retry_backoff_ms=100,
            apply_types=False,
            allow_auto_create_topics=False,
            graceful_timeout=5,
            # FastStream tells of each record at this level; without a logger what handlers raise would vanish.
            logger=log,
            log_level=logging.DEBUG,
            acks="all",
            enable_idempotence=True,
        )

    def subscribe(
        self, topics: Sequence[str], *, group: str, consumes: Consumes, max_records: int = 500
    ) -> Subscription:
        """Declares a loop's consumer; it runs from `start` to `stop` of this object."""
        subscription = Subscription(consumes, self._prefix)
        subscriber = self.broker.subscriber(
            *[self._prefix + topic for topic in topics],
            batch=True,
            max_records=max_records,
            batch_timeout_ms=3_600_000,
            group_id=self._prefix + group,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.ACK_FIRST,
            no_reply=True,
            parser=_unparsed,
            decoder=_raw,
            listener=subscription,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=500,
            max_partition_fetch_bytes=4_194_304,
        )
        subscription.consumer = lambda: subscriber.consumer
        prefix, pace = self._prefix, _Pace()

        async def take(messages: Any) -> None:
            await consumes.take([as_record(found, found.topic.removeprefix(prefix)) for found in messages])
            await pace.keep()

        subscriber(take)
        return subscription

    async def start(self) -> None:
        await self.broker.start()

    async def stop(self) -> None:
        """Leaves the groups; a member whose coordinator does not answer is let go of, and its group finds out by itself."""
        stopping = asyncio.create_task(self.broker.stop())
        await asyncio.wait([stopping], timeout=STOP_SECONDS)
        if not stopping.done():
            log.warning("a consumer did not leave its group in time")
            stopping.cancel()


class _Pace:
    """Under load, gathers what arrives within a few milliseconds: each batch costs a fetch, a transaction and an append.

    A record that comes alone is never held back.
    """

    def __init__(self) -> None:
        self._last = 0.0

    async def keep(self) -> None:
        loop = asyncio.get_running_loop()
        since, self._last = loop.time() - self._last, loop.time()
        if since < BUSY_SECONDS:
            await asyncio.sleep(GATHER_SECONDS)
            self._last = loop.time()


async def _unparsed(batch: Any) -> KafkaMessage:
    """The batch as it came. FastStream's own parser fails on a header that is null or no UTF-8, and passes the batch over."""
    return KafkaMessage(body=b"", raw_message=batch, headers={}, message_id="", consumer=FAKE_CONSUMER)


async def _raw(message: Any) -> Any:
    return message.raw_message
