"""Following the truth topics from now on: one consumer for each gateway process, whoever wants to know.

It goes by its own position, never jumps, and leaves void records out. What it tells has been decided, but perhaps not
folded yet: whoever shows it waits for the projection.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from gateways.log.kafka import as_record, client_settings
from schemas.envelope import Record

log = logging.getLogger(__name__)

Tells = Callable[[Record, str], None]
#: Records taken at once.
AT_ONCE: Final = 1000


class Tail:
    """Tells every valid new event to whoever listens, with the id of the command that caused it."""

    def __init__(self, bootstrap: str, topics: Sequence[str], *, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._topics = list(topics)
        self._prefix = prefix
        self._positions: dict[TopicPartition, int] = {}
        self._waiting: dict[str, asyncio.Future[Record]] = {}
        self._listeners: list[Tells] = []
        self._task: asyncio.Task[None] | None = None
        self.following = asyncio.Event()

    async def start(self) -> None:
        """Returns once it follows; retries for as long as no broker answers."""
        self._task = asyncio.create_task(self._follow(), name="tail")
        await self.following.wait()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def listen(self, tells: Tells) -> Callable[[], None]:
        """Has every event told from now on; call what is returned to end it."""
        self._listeners.append(tells)
        return lambda: self._listeners.remove(tells)

    def decision_on(self, command_id: str) -> asyncio.Future[Record]:
        """The first event that this command causes: ask before appending it, and `forget` it afterwards."""
        return self._waiting.setdefault(command_id, asyncio.get_running_loop().create_future())

    def forget(self, command_id: str) -> None:
        self._waiting.pop(command_id, None)

    def position(self, topic: str, partition: int) -> int:
        """The offset after the last record that was told."""
        return self._positions.get(TopicPartition(self._prefix + topic, partition), 0)

    @property
    def partitions(self) -> list[tuple[str, int]]:
        return sorted((tp.topic.removeprefix(self._prefix), tp.partition) for tp in self._positions)

    async def _follow(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                **client_settings(self._bootstrap), group_id=None, auto_offset_reset="none", enable_auto_commit=False
            )
            try:
                await consumer.start()
                await self._place(consumer)
                self.following.set()
                while True:
                    self._tell_all(await consumer.getmany(timeout_ms=60_000, max_records=AT_ONCE))
            except (KafkaError, OSError) as error:
                log.warning("the tail goes on from its own position", extra={"cause": repr(error)})
                await asyncio.sleep(0.2)
            finally:
                await asyncio.shield(consumer.stop())

    async def _place(self, consumer: AIOKafkaConsumer) -> None:
        """At the end the first time, at our own position ever after."""
        assigned = []
        for topic in self._topics:
            name = self._prefix + topic
            partitions = await consumer._client._wait_on_metadata(name)  # noqa: SLF001 - partitions_for_topic knows only what is assigned
            assigned += [TopicPartition(name, number) for number in sorted(partitions)]
        consumer.assign(assigned)
        ends = await consumer.end_offsets(assigned)
        for tp in assigned:
            self._positions.setdefault(tp, ends[tp])
            consumer.seek(tp, self._positions[tp])

    def _tell_all(self, found: dict[TopicPartition, list["ConsumerRecord[bytes, bytes]"]]) -> None:
        for tp, records in found.items():
            topic = tp.topic.removeprefix(self._prefix)
            for message in records:
                record = as_record(message, topic)
                if record.offset != self._positions[tp]:
                    raise KafkaError(f"{topic}/{tp.partition}: wanted {self._positions[tp]}, got {record.offset}")
                self._positions[tp] += 1
                if not record.void:
                    self._tell(record)

    def _tell(self, record: Record) -> None:
        cause = record.header("causationid")
        waiting = self._waiting.get(cause)
        if waiting is not None and not waiting.done():
            waiting.set_result(record)
        for tells in list(self._listeners):
            try:
                tells(record, cause)
            except Exception:
                log.exception("a listener failed on an event")
