"""Raw mail is read back by offset: what is gone is told from what can't be read now, and everybody is answered in time."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.raw_mail import SECONDS, RawMailLog, RawMailUnavailable
from schemas.topics import MAIL_RAW
from tests.support.tcp_proxies import TcpProxies, TcpProxy

MAILS = (b"first", b"second", b"third")
END = len(MAILS)
#: What this machine may take beyond the time that everybody is answered within.
SLACK_SECONDS = 3.0


@dataclass
class Kept:
    """A log that holds MAILS, and the proxy before its broker that a reader of it meets first."""

    log: RawMailLog
    proxy: TcpProxy
    admin: AIOKafkaAdminClient
    tp: TopicPartition

    async def drop_before(self, offset: int) -> None:
        """As retention does."""
        await self.admin.delete_records({self.tp: RecordsToDelete(offset)})

    def freeze(self) -> threading.Event:
        """Holds all connections; what is returned is set once somebody has sent something that will not be answered."""
        asked = threading.Event()

        def holds(_: bytes) -> bool:
            asked.set()
            return True

        self.proxy.freeze(holds)
        return asked


@pytest.fixture
async def kept(servers: Servers, topic_prefix: str) -> AsyncIterator[Kept]:
    tp = TopicPartition(topic_prefix + MAIL_RAW.name, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(tp.topic, 1, 1)])
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka)
    await producer.start()
    for mail in MAILS:
        await producer.send_and_wait(tp.topic, mail, partition=0)
    await producer.stop()
    host, port = servers.kafka.split(":")
    with TcpProxies() as proxies:
        here = ("127.0.0.1", free_port())
        proxy = proxies.open(here, (host, int(port)))
        log = RawMailLog(f"{here[0]}:{here[1]}", prefix=topic_prefix)
        yield Kept(log, proxy, admin, tp)
        proxy.thaw()
        await log.close()
    await admin.close()


async def everybody(log: RawMailLog, offset: int, callers: int = 4) -> tuple[list[object], float]:
    """What so many hear who ask at once, and the seconds until the last of them was answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    heard = await asyncio.gather(*(log.value(0, offset) for _ in range(callers)), return_exceptions=True)
    return list(heard), loop.time() - began


async def test_records_are_read_by_offset_in_any_order(kept: Kept) -> None:
    assert [await kept.log.value(0, offset) for offset in (2, 0, 1, 1)] == [b"third", b"first", b"second", b"second"]


async def test_who_is_cancelled_while_connecting_leaves_nothing_half_open_to_the_next(kept: Kept) -> None:
    asked = kept.freeze()
    cancelled = asyncio.create_task(kept.log.value(0, 0))
    assert await asyncio.to_thread(asked.wait, 10)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    kept.proxy.thaw()
    assert await kept.log.value(0, 0) == b"first"


async def test_who_is_cancelled_while_reading_leaves_the_log_readable(kept: Kept) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await kept.log.value(0, END)  # is awaited, since it may be on its way
    assert await kept.log.value(0, 1) == b"second"


async def test_while_kafka_is_frozen_everybody_is_answered_in_time(kept: Kept) -> None:
    kept.freeze()
    heard, seconds = await everybody(kept.log, 0)
    assert all(isinstance(answer, RawMailUnavailable) for answer in heard)
    assert seconds < SECONDS + SLACK_SECONDS
    kept.proxy.thaw()
    assert await kept.log.value(0, 0) == b"first"


async def test_while_a_record_does_not_come_everybody_is_answered_in_time(kept: Kept) -> None:
    heard, seconds = await everybody(kept.log, END)
    assert all(isinstance(answer, RawMailUnavailable) for answer in heard)
    assert seconds < SECONDS + SLACK_SECONDS
    assert await kept.log.value(0, 0) == b"first"


async def test_what_is_beyond_the_end_may_still_be_somewhere(kept: Kept) -> None:
    """A leader that has fallen behind knows less than was acknowledged."""
    with pytest.raises(RawMailUnavailable):
        await kept.log.value(0, END + 5)
    assert await kept.log.value(0, 2) == b"third"


async def test_what_is_before_the_beginning_is_gone(kept: Kept) -> None:
    await kept.drop_before(2)
    for offset in (0, 1):
        with pytest.raises(LookupError):
            await kept.log.value(0, offset)
    assert await kept.log.value(0, 2) == b"third"
