"""Reading single records of `mail.raw` back by offset: raw mail is stored nowhere else (DESIGN 3.3)."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from gateways.log.kafka import client_settings
from schemas.topics import MAIL_RAW

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

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def value(self, partition: int, offset: int) -> bytes:
        """The value of one record; raises LookupError where it is no longer kept, RawMailUnavailable where nobody answers."""
        async with self._one:
            tp = TopicPartition(self._topic, partition)
            try:
                async with asyncio.timeout(SECONDS):
                    consumer = await self._open()
                    if tp not in consumer.assignment():
                        consumer.assign([tp])
                    consumer.seek(tp, offset)
                    record = await consumer.getone(tp)
            except OffsetOutOfRangeError as error:
                raise LookupError(f"{self._topic}/{partition}/{offset} is no longer kept") from error
            except (KafkaError, TimeoutError, OSError) as error:
                await self.close()
                raise RawMailUnavailable(repr(error)) from error
            finally:
                # An assigned consumer goes on fetching: it is let go of until the next look.
                if self._consumer is not None:
                    self._consumer.unsubscribe()
            if record.offset != offset:
                raise LookupError(f"{self._topic}/{partition}/{offset} is no longer kept")
            return record.value or b""

    async def _open(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **client_settings(self._bootstrap),
                group_id=None,
                auto_offset_reset="none",
                enable_auto_commit=False,
                max_partition_fetch_bytes=65_536,
            )
            await self._consumer.start()
        return self._consumer
