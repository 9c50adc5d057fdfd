"""Reading single records of `mail.raw` back by offset: raw mail is stored nowhere else (DESIGN 3.3)."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError

from gateways.log.kafka import client_settings, stop
from schemas.topics import MAIL_RAW

#: Seconds within which everybody who asks is answered, those included who wait for their turn.
SECONDS: Final = 5.0


class RawMailUnavailable(Exception):
    """The log can't be read now: try again."""


class RawMailLog:
    """One consumer, one look at a time: reading raw mail back is rare."""

    def __init__(self, bootstrap: str, *, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._topic = prefix + MAIL_RAW.name
        self._consumer: AIOKafkaConsumer | None = None
        self._one = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        async with self._one:
            if self._consumer is not None:
                self._throw_away(self._consumer)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def value(self, partition: int, offset: int) -> bytes:
        """The value of one record; raises LookupError where it is no longer kept, RawMailUnavailable where nobody answers."""
        tp = TopicPartition(self._topic, partition)
        try:
            async with asyncio.timeout(SECONDS), self._one:
                found = await self._look(tp, offset)
        except (KafkaError, ConsumerStoppedError, TimeoutError, OSError) as error:
            raise RawMailUnavailable(repr(error)) from error
        if found is None:
            raise LookupError(f"{self._topic}/{partition}/{offset} is no longer kept")
        return found

    async def _look(self, tp: TopicPartition, offset: int) -> bytes | None:
        """The value, None where it is no longer kept. A consumer that was left in the middle of a look is not used again."""
        consumer = self._consumer = self._consumer or await self._start()
        try:
            consumer.assign([tp])
            found = await _value(consumer, tp, offset)
            # An assigned consumer goes on fetching: it is let go of until the next look.
            consumer.unsubscribe()
        except BaseException:
            self._throw_away(consumer)
            raise
        return found

    async def _start(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **client_settings(self._bootstrap),
            group_id=None,
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_partition_fetch_bytes=65_536,
        )
        try:
            await consumer.start()
        except BaseException:
            self._throw_away(consumer)
            raise
        return consumer

    def _throw_away(self, consumer: AIOKafkaConsumer) -> None:
        """Ends a consumer without waiting for that: whoever asked has waited long enough."""
        self._consumer = None
        task = asyncio.create_task(stop(consumer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _value(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> bytes | None:
    """The value of the record at this offset, None where the log no longer begins that early.

    Raises OffsetOutOfRangeError beyond the end: a leader that has fallen behind says so of records that others have.
    """
    consumer.seek(tp, offset)
    try:
        record = await consumer.getone(tp)
    except OffsetOutOfRangeError:
        if offset < (await consumer.beginning_offsets([tp]))[tp]:
            return None
        raise
    return (record.value or b"") if record.offset == offset else None
