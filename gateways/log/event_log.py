"""The truth topics: appending a batch whole or not at all, and reading on.

*Reading on* is the one thing that must be right for compare and append to be safe (DESIGN 4, rule 2):

- by our own contiguous position, never by jumping to where a client library thinks it should be
  (`auto_offset_reset="none"`; a record at any other offset than the next one ends the attempt);
- the broker's idea of the end is a hint that may be too short (a stale leader says so without an error), so reading is
  not finished below the floor: the highest offset this process knows to be in the log;
- too short is safe (the batch then lands elsewhere and is void), too long cannot be.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from gateways.log.kafka import APPEND_LIMIT_SECONDS, as_record, client_settings, start_producer, stop, throw_away
from schemas.envelope import Headers, Record
from schemas.topics import DECIDER_BATCH_BYTES

#: Seconds without progress, while more is known to be there, after which a reader is replaced.
STALLED_SECONDS: Final = 8.0
#: What one record takes beside its key, value and headers, at the most (Kafka's record format, version 2).
RECORD_OVERHEAD_BYTES: Final = 64


class LogUnavailable(Exception):
    """The log can't be read or appended to now; nothing is known to have happened."""


@dataclass(slots=True)
class Batch:
    """Records that are appended together: one Kafka record batch, one acknowledgement."""

    records: list[tuple[bytes, bytes, Headers]] = field(default_factory=list)
    size: int = 0

    def fits(self, records: list[tuple[bytes, bytes, Headers]]) -> bool:
        return not self.records or self.size + sum(map(_bytes_of, records)) <= DECIDER_BATCH_BYTES

    def add(self, records: list[tuple[bytes, bytes, Headers]]) -> None:
        self.records += records
        self.size += sum(map(_bytes_of, records))

    def __len__(self) -> int:
        return len(self.records)


def _bytes_of(record: tuple[bytes, bytes, Headers]) -> int:
    key, value, headers = record
    return len(key) + len(value) + sum(len(n) + len(v) + 4 for n, v in headers) + RECORD_OVERHEAD_BYTES


class EventLog:
    """The truth topics as deciders, replays and verifications need them. Topics go by their unprefixed names."""

    def __init__(self, bootstrap: str, *, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._readers: dict[TopicPartition, AIOKafkaConsumer] = {}
        self._closed = False

    async def close(self) -> None:
        if self._producer is not None:
            await throw_away(self._producer)
            self._producer = None
        self._closed = True
        while self._readers:
            await stop(self._readers.popitem()[1])

    # ── appending ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def batch(self) -> Batch:
        return Batch()

    async def append(self, topic: str, partition: int, batch: Batch, *, limit: float = APPEND_LIMIT_SECONDS) -> int:
        """The offset of the batch's first record, once it is acknowledged; −1 where the broker only says "repeated".

        Raises LogUnavailable after any error or `limit` seconds: the batch may still land later, exactly once or never.
        """
        producer = await self._open()
        builder = producer.create_batch()
        for key, value, headers in batch.records:
            if builder.append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
                raise ValueError(f"a batch of {batch.size} bytes does not fit one record batch")
        try:
            async with asyncio.timeout(limit):
                sent = await producer.send_batch(builder, self._prefix + topic, partition=partition)
                found = await sent
        except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
            await self._discard(producer)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise LogUnavailable(f"append to {topic}/{partition}: {error!r}") from error
        if found.offset < 0:
            await self._discard(producer)
        return int(found.offset)

    async def _open(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                try:
                    self._producer = await start_producer(self._bootstrap, batch_bytes=DECIDER_BATCH_BYTES + 100_000)
                except KafkaError as error:
                    raise LogUnavailable(f"no broker: {error!r}") from error
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """After an error its sequence numbers are spent and every later batch would fail: only a new one heals."""
        if self._producer is producer:
            self._producer = None
        await throw_away(producer)

    # ── reading on ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_on(
        self, topic: str, partition: int, position: int, *, floor: int = 0
    ) -> AsyncGenerator[list[Record], None]:
        """All records from `position` to the end of the log, which is not below `floor`, in order and without a gap.

        Void records are among them. Raises LogUnavailable where that can't be had: start again from what is known.
        """
        try:
            async with self._reading(topic, partition) as (reader, tp):
                reader.resume(tp)
                reader.seek(tp, position)
                while (end := await self._end(reader, tp, max(floor, position))) > position:
                    while position < end:
                        async with asyncio.timeout(STALLED_SECONDS + 1):
                            records = await self._some(reader, tp, topic)
                        _without_gap(records, position)
                        position += len(records)
                        yield records
                reader.pause(tp)
        except (KafkaError, ConsumerStoppedError, TimeoutError) as error:
            raise LogUnavailable(f"reading {topic}/{partition} at {position}: {error!r}") from error

    @staticmethod
    async def _end(reader: AIOKafkaConsumer, tp: TopicPartition, floor: int) -> int:
        """Where the partition ends, once that is not below the floor; raises TimeoutError where it stays below."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STALLED_SECONDS
        async with asyncio.timeout(STALLED_SECONDS):
            while (end := (await reader.end_offsets([tp]))[tp]) < floor:
                if loop.time() > deadline:
                    raise TimeoutError(f"the end is still below {floor}")
                # A leader that has fallen behind says so without an error: ask the others who leads.
                await reader._client.force_metadata_update()  # noqa: SLF001 - the public way waits metadata_max_age_ms
                await asyncio.sleep(0.1)
        return int(end)

    @staticmethod
    async def _some(reader: AIOKafkaConsumer, tp: TopicPartition, topic: str) -> list[Record]:
        """The next records; raises TimeoutError where none come."""
        # By the clock as well: a client library may swallow the cancellation that a time-out is made of.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STALLED_SECONDS
        while loop.time() < deadline:
            found = await reader.getmany(tp, timeout_ms=300, max_records=2000)
            if records := found.get(tp):
                return [as_record(record, topic) for record in records]
        raise TimeoutError("no records came")

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept and the offset after the last; raises LogUnavailable. A stale leader's end is too short."""
        try:
            async with self._reading(topic, partition) as (reader, tp), asyncio.timeout(STALLED_SECONDS):
                return (await reader.beginning_offsets([tp]))[tp], (await reader.end_offsets([tp]))[tp]
        except (KafkaError, ConsumerStoppedError, TimeoutError) as error:
            raise LogUnavailable(f"bounds of {topic}/{partition}: {error!r}") from error

    async def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; raises LogUnavailable."""
        producer = await self._open()
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                return sorted(await producer.partitions_for(self._prefix + topic))
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"partitions of {topic}: {error!r}") from error

    @asynccontextmanager
    async def _reading(self, topic: str, partition: int) -> AsyncIterator[tuple[AIOKafkaConsumer, TopicPartition]]:
        """A reader of one partition, ours alone for as long as the block runs.

        Kept alive between uses, because a new one may bootstrap at a broker that knows an older truth; replaced after errors.
        """
        tp = TopicPartition(self._prefix + topic, partition)
        reader = self._readers.pop(tp, None) or await self._start_reader(tp)
        try:
            yield reader, tp
        except GeneratorExit:
            reader.pause(tp)
            await self._keep(tp, reader)
            raise
        except BaseException:
            await stop(reader)
            raise
        await self._keep(tp, reader)

    async def _start_reader(self, tp: TopicPartition) -> AIOKafkaConsumer:
        reader = AIOKafkaConsumer(
            **client_settings(self._bootstrap),
            group_id=None,
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_partition_fetch_bytes=8_388_608,
            # A fetch that finds nothing any more keeps the connection, and whatever is asked on it next, for as long as this.
            fetch_max_wait_ms=20,
        )
        try:
            await reader.start()
        except BaseException:
            await stop(reader)
            raise
        reader.assign([tp])
        reader.pause(tp)
        return reader

    async def _keep(self, tp: TopicPartition, reader: AIOKafkaConsumer) -> None:
        if self._closed or tp in self._readers:
            await stop(reader)
        else:
            self._readers[tp] = reader


def _without_gap(records: list[Record], position: int) -> None:
    for expected, record in enumerate(records, position):
        if record.offset != expected:
            raise LogUnavailable(f"{record.topic}/{record.partition}: wanted offset {expected}, got {record.offset}")
