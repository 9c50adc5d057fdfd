"""FastStream as our loops use it: raw records in batches over several partitions, positions that are our own.

Group offsets are committed at once (`ACK_FIRST`) and serve lag tools only: every loop seeks to the position that its own
state tells. The settings are those that were found to matter: an `async` decoder (a sync one runs in a thread for each
batch), `apply_types=False`, a poll that never ends without a record (FastStream sleeps as long again after one that did),
and the range assignor, which keeps the partitions of one number together.

What a loop raises is told, and the same records are given to it again: FastStream would pass them over. Each consumer is
watched, and replaced where it is no member of its group any more: see group_member.py.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage, Topic
from faststream.kafka.message import FAKE_CONSUMER

from gateways.log.group_member import GroupMember
from gateways.log.kafka import as_record, client_settings
from gateways.log.pace import GATHER_BYTES, WAIT_MS, Pace
from schemas.envelope import Record

log = logging.getLogger(__name__)

#: Milliseconds that a poll waits for records: ten years.
POLL_MS: Final = 315_360_000_000
#: Seconds between two tries to give records to a loop that raises.
RETRY_SECONDS: Final = 1.0
#: Seconds that consumers get to end what they do and to leave their groups.
STOP_SECONDS: Final = 10.0

Partition = tuple[str, int]


class Consumes(Protocol):
    """What a loop does with a subscription. It deals with its own errors: what `take` raises is told, and tried again."""

    async def assigned(self, partitions: Sequence[Partition]) -> None: ...

    async def revoked(self, partitions: Sequence[Partition]) -> None: ...

    async def take(self, records: Sequence[Record]) -> None: ...


class Subscription(ConsumerRebalanceListener):
    """One consumer group member; partitions go by (unprefixed topic, number)."""

    def __init__(self, consumes: Consumes, prefix: str) -> None:
        self._consumes = consumes
        self._prefix = prefix
        self._assigned: list[Partition] = []
        self.consumer: Callable[[], AIOKafkaConsumer | None] = lambda: None
        #: When (the event loop's clock) the group last said that we are a member.
        self.confirmed_at = 0.0

    def seek(self, topic: str, partition: int, offset: int) -> bool:
        """Goes on from this offset; False where the partition isn't ours (any more)."""
        return self._told(lambda consumer, place: consumer.seek(place, offset), topic, partition)

    def pause(self, topic: str, partition: int) -> bool:
        """Delivers nothing of it until it is resumed, or assigned anew; False where it isn't ours (any more).

        What has been fetched and not yet delivered is fetched again afterwards.
        """
        return self._told(lambda consumer, place: consumer.pause(place), topic, partition)

    def resume(self, topic: str, partition: int) -> bool:
        """Goes on where it was paused, if it was; False where it isn't ours (any more)."""
        return self._told(lambda consumer, place: consumer.resume(place), topic, partition)

    def _told(self, what: Callable[[AIOKafkaConsumer, TopicPartition], None], topic: str, partition: int) -> bool:
        consumer = self.consumer()
        if consumer is None:
            return False
        try:
            what(consumer, TopicPartition(self._prefix + topic, partition))
        except (IllegalStateError, AssertionError):
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
        self.confirmed_at = asyncio.get_running_loop().time()
        self._assigned = self._ours(assigned)
        await self._consumes.assigned(self._assigned)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        self._assigned = []
        await self._consumes.revoked(self._ours(revoked))

    async def lost(self) -> None:
        """The consumer is gone, and whatever it had."""
        partitions, self._assigned = self._assigned, []
        await self._consumes.revoked(partitions)

    async def take(self, records: Sequence[Record]) -> None:
        """Gives records to the loop until it has taken them."""
        while True:
            try:
                return await self._consumes.take(records)
            except Exception:
                log.exception("a loop failed, and is given the same records again", extra={"topic": records[0].topic})
                await asyncio.sleep(RETRY_SECONDS)

    def _ours(self, partitions: list[TopicPartition]) -> list[Partition]:
        return sorted((tp.topic.removeprefix(self._prefix), tp.partition) for tp in partitions)


class Subscriptions:
    """The one FastStream broker of a process, and every loop's place on it."""

    def __init__(self, bootstrap: str, *, prefix: str = "", session_timeout_ms: int = 6000) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._session_timeout_ms = session_timeout_ms
        self._members: list[GroupMember] = []
        self._watching: list[asyncio.Task[None]] = []
        self.broker = KafkaBroker(
            client_settings(bootstrap)["bootstrap_servers"],
            # More than a session: a member that joins waits until the group has given up on one that died.
            request_timeout_ms=self._session_timeout_ms + 1000,
            metadata_max_age_ms=5000,
            retry_backoff_ms=100,
            apply_types=False,
            graceful_timeout=5,
            # FastStream tells of each record at this level; without a logger what handlers raise would vanish.
            logger=log,
            log_level=logging.DEBUG,
            acks="all",
            enable_idempotence=True,
        )

    def subscribe(
        self,
        topics: Sequence[str],
        *,
        group: str,
        consumes: Consumes,
        max_records: int = 500,
        in_a_hurry: bool = True,
    ) -> Subscription:
        """Declares a loop's consumer; it runs from `start` to `stop` of this object.

        One that is not in a hurry has what comes delivered together, twice a second: each delivery costs CPU everywhere.
        """
        subscription = Subscription(consumes, self._prefix)
        subscriber = self.broker.subscriber(
            # Provisioning makes them; FastStream, told so of each, creates none and warns of none.
            *[Topic(self._prefix + topic, declare=False) for topic in topics],
            batch=True,
            max_records=max_records,
            batch_timeout_ms=POLL_MS,
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
            fetch_min_bytes=1 if in_a_hurry else GATHER_BYTES,
            fetch_max_wait_ms=WAIT_MS,
        )
        subscription.consumer = lambda: subscriber.consumer
        prefix, pace = self._prefix, Pace()

        async def take(messages: Any) -> None:
            if in_a_hurry:
                pace.keep(subscription.consumer(), len(messages))
            await subscription.take([as_record(found, found.topic.removeprefix(prefix)) for found in messages])

        subscriber(take)
        session_seconds = self._session_timeout_ms / 1000
        self._members.append(GroupMember(self._bootstrap, subscriber, subscription, session_seconds=session_seconds))
        return subscription

    async def start(self) -> None:
        await self.broker.start()
        self._watching = [asyncio.create_task(member.watch()) for member in self._members]

    async def stop(self) -> None:
        """Leaves the groups; a member whose coordinator does not answer is let go of, and its group finds out by itself."""
        for watching in self._watching:
            watching.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        stopping = asyncio.create_task(self.broker.stop())
        await asyncio.wait([stopping], timeout=STOP_SECONDS)
        if not stopping.done():
            log.warning("a consumer did not leave its group in time")
            stopping.cancel()


async def _unparsed(batch: Any) -> KafkaMessage:
    """The batch as it came. FastStream's own parser fails on a header that is null or no UTF-8, and passes the batch over."""
    return KafkaMessage(body=b"", raw_message=batch, headers={}, message_id="", consumer=FAKE_CONSUMER)


async def _raw(message: Any) -> Any:
    return message.raw_message
