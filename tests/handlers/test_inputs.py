"""What was decided without events outlives its records, and what was lost undecided is not passed over in silence."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from domain.mailbox_commands import PurgeMailbox, ReadMessage
from domain.mailbox_events import MailboxCreated
from domain.outcomes import InputReset, InputsAdvanced
from gateways.command_line.failures import NOT_FOUND, USAGE, Failed
from gateways.command_line.reset_input import reset_input
from handlers import accounts, connections, mailboxes, sends, webhooks
from schemas import events
from schemas.envelope import Record, first
from schemas.topics import DECIDED_IN
from tests.faults import log_scan
from tests.faults.installation import COMMANDS, EVENTS, MAIL, Installation, installed
from tests.faults.looking import snapshots, violations

NOTHING = PurgeMailbox("mbx_nobodys")


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


async def retention_removes(house: Installation, topic: str, *, but: int = 0) -> int:
    """Every record of the topic but so many; where it begins now."""
    _, end = await house.log.bounds(topic, 0)
    async with admin(house) as client:
        await client.delete_records({TopicPartition(house.prefix + topic, 0): RecordsToDelete(end - but)})
    assert await house.log.bounds(topic, 0) == (end - but, end)
    return end - but


async def ends(house: Installation) -> dict[str, int]:
    return {topic: (await house.log.bounds(topic, 0))[1] for topic in (COMMANDS, MAIL)}


async def said(house: Installation, kind: type) -> list[Any]:
    """What the log says of itself, by its type; void records are left out."""
    name = events.LOG.types[kind]
    found = [r for r in await house.records(EVENTS) if not r.void and first(r.headers)["ce_type"] == name]
    return [events.LOG.decode(name, record.value) for record in found]


async def markers(house: Installation) -> list[Record]:
    """Every marker, void ones included."""
    kind = events.LOG.types[InputsAdvanced]
    return [record for record in await house.records(EVENTS) if first(record.headers)["ce_type"] == kind]


async def end_moves(house: Installation, topic: str, position: int) -> int:
    async with asyncio.timeout(30):
        while (end := (await house.log.bounds(topic, 0))[1]) <= position:
            await asyncio.sleep(0.02)
    return end


async def lived(house: Installation) -> None:
    """A while of life, after which nobody runs and all is proven by events."""
    work, project = await asyncio.gather(house.start("work"), house.start("project"))
    box = await house.open_mailbox("acc_1")
    await house.mail(box, b"Subject: hello\r\n\r\nhi\r\n")
    await house.quiet()
    assert [await work.stop(), await project.stop()] == [0, 0]


async def decides(house: Installation) -> None:
    """Deciders and projections go on as if nothing had been, and nothing is wrong with the log."""
    work, project = await asyncio.gather(house.start("work"), house.start("project"))
    box = await house.open_mailbox("acc_1")
    await house.mail(box, b"Subject: once more\r\n\r\nhi\r\n")
    await house.quiet()
    assert [await work.stop(), await project.stop()] == [0, 0]
    made = [
        fact.event.mailbox
        for fact in log_scan.facts(await house.records(EVENTS))
        if isinstance(fact.event, MailboxCreated)
    ]
    assert box.mailbox in made
    assert await violations(house) == []


async def test_decisions_without_events_are_proven_by_one_marker_once_it_is_quiet(house):
    await lived(house)
    assert await markers(house) == []
    _, before = await house.log.bounds(EVENTS, 0)
    work = await house.start("work", quiet=0.4)
    for _ in range(20):
        await house.ask(NOTHING, "acc_1")
    assert await end_moves(house, EVENTS, before) == before + 1
    assert await said(house, InputsAdvanced) == [InputsAdvanced(await ends(house))]
    async with asyncio.timeout(10):
        while (await snapshots(house))[0].checkpoint.end != before + 1:
            await asyncio.sleep(0.02)
    assert (await snapshots(house))[0].checkpoint.inputs == await ends(house)
    await work.kill()

    await retention_removes(house, COMMANDS)
    await decides(house)
    assert len(await markers(house)) == 1


async def test_a_role_that_ends_proves_what_it_decided_and_says_nothing_where_all_is_proven(house):
    await lived(house)
    work = await house.start("work")
    offset = await asked_and_decided(house)
    assert await work.stop() == 0
    assert [marker.inputs[COMMANDS] for marker in await said(house, InputsAdvanced)] == [offset]
    for _ in range(2):
        assert await (await house.start("work")).stop() == 0
    assert len(await markers(house)) == 1
    await retention_removes(house, COMMANDS)
    await decides(house)
    assert len(await markers(house)) == 1


async def asked_and_decided(house: Installation) -> int:
    """Commands from which nothing follows, taken by the decider; the offset after them.

    That they were taken shows in the group's offset; the lane decides them before it ends.
    """
    for _ in range(3):
        await house.ask(NOTHING, "acc_1")
    _, end = await house.log.bounds(COMMANDS, 0)
    place, group = TopicPartition(house.prefix + COMMANDS, 0), f"{house.prefix}decider.mailbox.v1"
    async with admin(house) as client, asyncio.timeout(30):
        while (await client.list_consumer_group_offsets(group))[place].offset < end:
            await asyncio.sleep(0.05)
    return end


async def test_until_it_is_proven_no_snapshot_says_that_a_decision_without_events_was_made(house):
    await lived(house)
    before = await snapshots(house)
    work = await house.start("work")
    await asked_and_decided(house)
    await work.kill()
    assert await snapshots(house) == before


async def test_markers_alone_come_an_hour_apart(house):
    await lived(house)
    work = await house.start("work", quiet=0.2)
    _, before = await house.log.bounds(EVENTS, 0)
    await house.ask(NOTHING, "acc_1")
    await end_moves(house, EVENTS, before)
    await asked_and_decided(house)
    await house.quiet(projected=False)
    assert len(await markers(house)) == 1
    assert await work.stop() == 0


async def test_two_owners_leave_it_at_a_marker_each(house):
    await lived(house)
    _, before = await house.log.bounds(EVENTS, 0)
    for _ in range(20):
        await house.ask(NOTHING, "acc_1")
    owners = await asyncio.gather(*[house.start("work", owner=name, quiet=0.3) for name in (".a", ".b")])
    await end_moves(house, EVENTS, before)
    assert [await owner.stop() for owner in owners] == [0, 0]
    assert (await said(house, InputsAdvanced))[-1] == InputsAdvanced(await ends(house))
    assert len(await markers(house)) <= 4, "each of them has one for the quiet and one for its end, at the most"
    assert await violations(house) == []


async def test_what_was_removed_undecided_stops_the_decider_until_an_operator_passes_over_it(house):
    """Killed before its marker, and then away for longer than records are kept: nobody knows that nothing is missing."""
    await lived(house)
    work = await house.start("work")
    await asked_and_decided(house)
    await work.kill()
    await house.ask(ReadMessage("mbx_1", "msg_1"), "acc_1")
    start = await retention_removes(house, COMMANDS)

    stopped = await house.start("work", patience=0.3)
    assert await stopped.ended() == 1
    sentence = stopped.log.read_text()
    assert f"{COMMANDS}/0 begins at {start}, but what is to be decided next stood at {start - 4}" in sentence
    assert f"python main.py reset-input {COMMANDS} --partition 0" in sentence

    done = await reset_input(house.log, house.pool, COMMANDS, 0, "away over the summer")
    assert done == InputReset(COMMANDS, start - 4, start, "operator", "away over the summer")
    assert await said(house, InputReset) == [done]
    await decides(house)


async def test_an_input_is_reset_beside_a_decider_that_writes_and_without_any_snapshot(house):
    await lived(house)
    await house.ask(ReadMessage("mbx_1", "msg_1"), "acc_1")
    start = await retention_removes(house, COMMANDS)
    await house.pool.execute("truncate decider_state, decider_checkpoints")
    waiting = await house.start("work")
    done = await reset_input(house.log, house.pool, COMMANDS, 0, "it was tried")
    assert done.to_offset == start
    await waiting.kill()

    working, _ = await asyncio.gather(house.start("work"), house.start("project"))
    for number in range(30):
        await house.mail(house.mailboxes[0], b"Subject: %d\r\n\r\nhi\r\n" % number)
    with pytest.raises(Failed, match="Nothing is missing"):
        await reset_input(house.log, house.pool, COMMANDS, 0, "again")
    await house.quiet()
    assert await working.stop() == 0
    assert await violations(house) == []


@pytest.mark.parametrize(
    ("topic", "partition", "sentence", "code"),
    [(EVENTS, 0, "is no input", USAGE), (COMMANDS, 7, "no partition 7", NOT_FOUND), (MAIL, 0, "Nothing is missing", 1)],
)
async def test_only_an_input_that_misses_records_is_reset(house, topic, partition, sentence, code):
    with pytest.raises(Failed, match=sentence) as failed:
        await reset_input(house.log, house.pool, topic, partition, "why not")
    assert failed.value.code == code


async def test_records_that_are_removed_before_a_running_decider_has_come_to_them_stop_it(house):
    await lived(house)
    work = await house.start("work", patience=0.3)
    await asked_and_decided(house)
    work.signal(signal.SIGSTOP)
    for _ in range(3):
        await house.ask(ReadMessage("mbx_1", "msg_1"), "acc_1")
    await retention_removes(house, COMMANDS, but=1)
    work.signal(signal.SIGCONT)
    assert await work.ended() == 1
    assert "records were removed that had been acknowledged" in work.log.read_text()


async def test_an_input_that_lost_its_beginning_before_anything_was_decided_is_no_clean_start(house):
    for _ in range(2):
        await house.ask(ReadMessage("mbx_1", "msg_1"), "acc_1")
    await retention_removes(house, COMMANDS, but=1)
    work = await house.start("work", patience=0.3)
    assert await work.ended() == 1
    assert f"{COMMANDS}/0 begins at 1, but what is to be decided next stood at 0" in work.log.read_text()


def test_every_input_of_a_decider_can_be_reset():
    """Where an input is decided is said twice: to its decider, and to the word that resets it."""
    contexts = (
        mailboxes.context(None),
        accounts.context(),
        connections.context(),
        sends.context(),
        webhooks.context(),
    )
    assert {topic: context.events for context in contexts for topic in context.inputs} == DECIDED_IN
