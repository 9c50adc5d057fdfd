"""Two histories are never mixed: a topic that is not the one that was decided on stops a lane. A snapshot only saves time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from domain.mailbox_commands import ReadMessage
from gateways.log.provision import provision
from tests.faults.installation import COMMANDS, EVENTS, Installation, installed
from tests.faults.looking import snapshots, violations


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path):
    async with installed(servers, database, topic_prefix, tmp_path) as house:
        yield house


@asynccontextmanager
async def admin(house: Installation) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=house.settings.kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def lived(house: Installation, mails: int = 3) -> None:
    """A while of life, after which nobody runs."""
    work, project = await asyncio.gather(house.start("work"), house.start("project"))
    box = await house.open_mailbox("acc_1")
    for number in range(mails):
        await house.mail(box, b"Subject: %d\r\n\r\nhi\r\n" % number)
    await house.quiet()
    await asyncio.gather(work.stop(), project.stop())


async def made_anew(house: Installation, topic: str) -> None:
    async with admin(house) as client:
        await client.delete_topics([house.prefix + topic])
        while house.prefix + topic in await client.list_topics():
            await asyncio.sleep(0.05)
    await provision(house.settings.kafka, prefix=house.prefix, partitions=1)


async def assert_stops(house: Installation, topic: str) -> None:
    work = await house.start("work", patience=0.5)
    assert await work.ended() == 1
    said = work.log.read_text()
    # Its own look at the inputs, or the look at the log that every role takes before it begins.
    inputs = f"{topic}/0 holds offsets" in said and "this is not the topic it was decided on. Restore it" in said
    identity = f"remembers {topic}/0 as" in said and "they are not from one history. Restore" in said
    assert inputs or identity, said


@pytest.mark.parametrize("topic", [COMMANDS, EVENTS])
async def test_a_topic_that_was_made_anew_stops_the_decider_with_its_sentence(house, topic):
    await lived(house)
    await made_anew(house, topic)
    await assert_stops(house, topic)


async def test_an_input_that_lost_what_was_not_decided_yet_stops_the_decider(house):
    await lived(house)
    for _ in range(3):
        await house.ask(ReadMessage("mbx_1", "msg_1"), "acc_1")
    _, end = await house.log.bounds(COMMANDS, 0)
    async with admin(house) as client:
        await client.delete_records({TopicPartition(house.prefix + COMMANDS, 0): RecordsToDelete(end - 1)})
    work = await house.start("work", patience=0.5)
    assert await work.ended() == 1
    assert (
        f"{COMMANDS}/0 begins at {end - 1}, but what is to be decided next stood at {end - 3}" in work.log.read_text()
    )


@pytest.mark.parametrize("how", ["lost", "of an old backup"])
async def test_a_snapshot_that_is_lost_or_old_leads_to_the_same_state(house, how):
    await lived(house)
    old = [dict(row) for row in await house.pool.fetch("select * from decider_state")]
    (checkpoint,) = await house.pool.fetch("select * from decider_checkpoints where context = 'mailbox.v1'")
    await lived(house, mails=4)
    await house.pool.execute("truncate decider_state, decider_checkpoints")
    if how == "of an old backup":
        await house.pool.copy_records_to_table("decider_checkpoints", schema_name="kept", records=[tuple(checkpoint)])
        await house.pool.copy_records_to_table(
            "decider_state", schema_name="kept", records=[tuple(row.values()) for row in old]
        )
    await lived(house, mails=1)
    (snapshot,) = await snapshots(house)
    assert snapshot.checkpoint.end == (await house.log.bounds(EVENTS, 0))[1]
    assert await violations(house) == []
