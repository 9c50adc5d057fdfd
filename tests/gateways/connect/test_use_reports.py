"""Calls with tokens, on record without a round trip: whole, in order, and not lost silently while the log is away."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from prometheus_client import CollectorRegistry

from domain.connection_events import Call
from gateways.local_ports import free_port
from gateways.log.command_log import CommandLog
from gateways.log.use_reports import BATCH, FLUSH_SECONDS, MOST_WAITING, UseReports
from schemas import events, topics
from tests.support.connect_house import ConnectHouse
from tests.support.connected import Person
from tests.support.waiting import until

AT = datetime(2026, 3, 13, 15, 30, tzinfo=UTC)


def call(number: int) -> Call:
    return Call(AT + timedelta(milliseconds=number), "send", "deliver", f"snd_{number}", "ok")


async def connected(house: ConnectHouse) -> tuple[Person, str]:
    ada = await house.person()
    return ada, await house.connected(ada)


async def all_calls(house: ConnectHouse, connection: str) -> list[list[str]]:
    """What the log tells of this connection's calls, batch by batch."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    services, prefix = house.inner.services, house.inner.house.prefix
    consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka, enable_auto_commit=False)
    await consumer.start()
    found: list[list[str]] = []
    try:
        partitions = [
            TopicPartition(prefix + topic, number)
            for topic, number in services.tail.partitions
            if topic == topics.CONNECTION_EVENTS.name
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    kind = dict(record.headers)["ce_type"].decode()
                    if kind.startswith("connection.token-used"):
                        event = events.CONNECTION.decode(kind, record.value)
                        found += [[one.regarding for one in event.calls]] if event.connection == connection else []
    finally:
        await consumer.stop()
    return found


async def test_calls_are_on_record_in_order_and_in_batches(house: ConnectHouse) -> None:
    ada, connection = await connected(house)
    uses = UseReports(house.inner.services.command_log)
    uses.start()
    for number in range(2 * BATCH + 50):
        uses.note(connection, ada.id, call(number))
    await uses.close()
    wanted = [f"snd_{number}" for number in range(2 * BATCH + 50)]

    async def told() -> bool:
        return [*chain(*await all_calls(house, connection))] == wanted

    await until(told)
    assert [len(batch) for batch in await all_calls(house, connection)] == [BATCH, BATCH, 50]
    assert (uses.waiting, uses.dropped) == (0, 0)


async def test_a_hundred_go_at_once_and_fewer_within_a_second(house: ConnectHouse) -> None:
    ada, connection = await connected(house)
    uses, began = UseReports(house.inner.services.command_log), asyncio.get_running_loop().time()
    uses.start()

    async def none_waits() -> bool:
        return uses.waiting == 0

    for number in range(BATCH):
        uses.note(connection, ada.id, call(number))
    await until(none_waits, seconds=0.8)
    uses.note(connection, ada.id, call(BATCH))
    await until(none_waits, seconds=3)
    assert asyncio.get_running_loop().time() - began < 3
    await uses.close()


async def test_while_the_log_is_away_calls_wait_and_then_go_on(house: ConnectHouse) -> None:
    ada, connection = await connected(house)
    services = house.inner.services
    log = CommandLog(f"127.0.0.1:{free_port()}", prefix=house.inner.house.prefix)
    uses = UseReports(log)
    for number in range(5):
        uses.note(connection, ada.id, call(number))
    await uses.flush()
    assert (uses.waiting, uses.dropped) == (5, 0)
    log._bootstrap = services.kafka or ""  # the broker is back, at the address it is looked for
    uses.note(connection, ada.id, call(5))
    await uses.close()
    await log.close()

    async def told() -> bool:
        return [*chain(*await all_calls(house, connection))] == [f"snd_{number}" for number in range(6)]

    await until(told)


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    log = CommandLog(f"127.0.0.1:{free_port()}")
    uses = UseReports(log, registry)
    for number in range(MOST_WAITING + 7):
        uses.note(f"con_{number % 3}", "usr_1", call(number))
    assert (uses.waiting, uses.dropped) == (MOST_WAITING, 7)
    assert registry.get_sample_value("postledger_token_uses_dropped_total") == 7
    await uses.close()
    await log.close()
    assert (uses.waiting, uses.dropped) == (0, MOST_WAITING + 7)
    assert sum("dropped" in record.message for record in caplog.records) == 1, "said once, and counted from then on"


async def test_to_note_a_call_costs_no_round_trip(house: ConnectHouse) -> None:
    ada, connection = await connected(house)
    uses = UseReports(house.inner.services.command_log)
    began = asyncio.get_running_loop().time()
    for number in range(10_000):
        uses.note(connection, ada.id, call(number % 100))
    assert (asyncio.get_running_loop().time() - began) / 10_000 < 0.0001
    await uses.close()


async def test_a_call_that_cannot_be_written_keeps_no_other_from_the_log(house: ConnectHouse) -> None:
    ada, connection = await connected(house)
    uses = UseReports(house.inner.services.command_log)
    uses.start()
    uses.note("con_broken", ada.id, Call(AT, "send", "deliver", "\ud800", "ok"))
    await asyncio.sleep(FLUSH_SECONDS * 1.5)  # it has been tried
    uses.note(connection, ada.id, call(1))

    async def told() -> bool:
        return [*chain(*await all_calls(house, connection))] == ["snd_1"]

    await until(told)
    await uses.close()


async def test_how_many_were_dropped_is_told_once_the_log_answers(
    house: ConnectHouse, caplog: pytest.LogCaptureFixture
) -> None:
    ada, connection = await connected(house)
    log = CommandLog(f"127.0.0.1:{free_port()}", prefix=house.inner.house.prefix)
    uses = UseReports(log)
    for outage in (1, 2):
        log._bootstrap = f"127.0.0.1:{free_port()}"
        for number in range(MOST_WAITING + outage):
            uses.note(connection, ada.id, call(number % 100))
        log._bootstrap = house.inner.services.kafka or ""
        await uses.flush()
    await uses.close()
    await log.close()
    told = [(record.levelname, getattr(record, "calls", 0)) for record in caplog.records if "dropped" in record.message]
    assert told == [("ERROR", 0), ("WARNING", 1), ("ERROR", 0), ("WARNING", 2)]
