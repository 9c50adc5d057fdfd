"""Appending commands and mail: what an acknowledgement to the outside stands on (DESIGN 4, rule 1).

A refusal *before* an append was tried is definite (`NotPromised`). After it, nothing is known (`OutcomeUnknown`): the client
library may still deliver the record, which then carries a `notafter` that has passed and is decided as lapsed. While an
append is overdue, further ones are refused at once: nothing queues up behind a broker that does not answer.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from gateways.log.kafka import GATEWAY_LIMIT_SECONDS, start_producer, throw_away
from schemas.envelope import Headers, command_headers, milliseconds
from schemas.ids import new_id
from schemas.vocabulary import Vocabulary, encode

log = logging.getLogger(__name__)

#: Appends on their way at once; more are refused.
IN_FLIGHT: Final = 500
#: Seconds after which an append counts as overdue.
OVERDUE_SECONDS: Final = 2.0
#: Bytes gathered into one request.
BATCH_BYTES: Final = 524_288
#: Seconds to find a broker in; they count among those of the append.
CONNECT_SECONDS: Final = 4.0


class NotPromised(Exception):
    """Nothing comes of it and nothing will: try again later. Only after `TooLate` is there a record."""


class TooLarge(NotPromised):
    """Nothing was appended, and no second try will be: the record is larger than the log takes."""


class TooLate(NotPromised):
    """It was appended, but later than it may take effect: it will be decided as lapsed."""


class OutcomeUnknown(Exception):
    """It was tried, and no acknowledgement came in time: it may have happened or not."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a command stands, and the id its events will name as their cause."""

    command_id: str
    topic: str
    partition: int
    offset: int


class CommandLog:
    """The command topics and `mail.raw`, as gateways append to them."""

    def __init__(self, bootstrap: str, *, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._under_way: dict[int, float] = {}
        self._number = 0

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await throw_away(producer)

    @property
    def overdue(self) -> bool:
        """Whether an append has been on its way for longer than it should."""
        oldest = next(iter(self._under_way.values()), None)
        return oldest is not None and asyncio.get_running_loop().time() - oldest > OVERDUE_SECONDS

    async def command(
        self,
        topic: str,
        key: str,
        command: Any,
        *,
        vocabulary: Vocabulary,
        subject: str,
        command_id: str | None = None,
        not_after: datetime | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Appended:
        """Appends one command; raises NotPromised or OutcomeUnknown."""
        now = datetime.now(UTC)
        command_id = command_id or new_id("cmd")
        headers = command_headers(
            command_id=command_id,
            kind=vocabulary.type_of(command),
            subject=subject,
            at=now,
            not_after=not_after or now + timedelta(seconds=GATEWAY_LIMIT_SECONDS),
            trace=trace,
        )
        partition, offset = await self.append(topic, key, encode(command), headers)
        return Appended(command_id, topic, partition, offset)

    async def append(
        self, topic: str, key: str, value: bytes, headers: Headers, *, lapses: bool = True
    ) -> tuple[int, int]:
        """Partition and offset, once the record is acknowledged; raises NotPromised or OutcomeUnknown.

        `lapses`: whether it is a command, so that one that came after its `notafter` is no promise.
        """
        if self.overdue or len(self._under_way) >= IN_FLIGHT:
            raise NotPromised("the log is not answering")
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        self._under_way[number] = loop.time()
        try:
            place, stamped_ms = await self._append(topic, key, value, headers)
        finally:
            del self._under_way[number]
        if lapses:
            _in_time(headers, stamped_ms)
        return place

    async def _append(self, topic: str, key: str, value: bytes, headers: Headers) -> tuple[tuple[int, int], int | None]:
        """Where the record stands, and when the broker says it was appended."""
        deadline = asyncio.get_running_loop().time() + GATEWAY_LIMIT_SECONDS
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                producer = await self._open()
        except (KafkaError, TimeoutError, OSError) as error:
            raise NotPromised("no broker can be reached") from error
        sent = None
        try:
            async with asyncio.timeout_at(deadline):
                sent = await producer.send(self._prefix + topic, value, key=key.encode(), headers=list(headers))
                found = await asyncio.shield(sent)
        except (KafkaError, TimeoutError) as error:
            refused = isinstance(error, MessageSizeTooLargeError)
            if not refused or sent is not None:
                # Refused by the broker, it has spent a sequence number: only a new producer goes on.
                await self._discard(producer)
            if refused:
                raise TooLarge("the record is too large") from error
            raise OutcomeUnknown(repr(error)) from error
        return (found.partition, found.offset), found.timestamp

    async def _open(self) -> AIOKafkaProducer:
        if self._producer is None:
            async with self._starting:
                if self._producer is None:
                    self._producer = await start_producer(self._bootstrap, batch_bytes=BATCH_BYTES)
        return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            await throw_away(producer)


def _in_time(headers: Headers, stamped_ms: int | None) -> None:
    """Raises TooLate where the broker's clock says that the record came too late: it will be decided as lapsed."""
    not_after = next((value for name, value in headers if name == "notafter"), None)
    if not_after is None:
        return
    if stamped_ms is None or stamped_ms < 0:
        raise OutcomeUnknown("the broker does not say when it was appended")
    if stamped_ms > milliseconds(datetime.fromisoformat(not_after.decode())):
        raise TooLate("the log took it too late")
