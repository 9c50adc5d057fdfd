"""The programs that docs/topics.md shows, as processes of their own, on a real Kafka."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from docs.copy_topic import copy
from domain.mailbox_events import MailboxDeleted, MailboxPurged, MessageRead
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from schemas.envelope import Record, Source, event_headers, first, moment
from schemas.events import MAILBOX
from schemas.topics import MAILBOX_EVENTS
from schemas.vocabulary import encode

ROOT = Path(__file__).parents[2]


async def append(log: EventLog, event: object, *, position: int, event_id: str) -> int:
    """Appends one event that claims this position; answers where it stands."""
    headers = event_headers(
        event_id=event_id,
        kind=MAILBOX.type_of(event),
        subject="mbx_1",
        at=moment(1_773_415_800_000),
        position=position,
        cause={"ce_id": "cmd_1"},
        source=Source("mailbox.commands", 0, position),
        sequence=position + 1,
    )
    batch = log.batch()
    batch.add([(b"acc_1", encode(event), headers)])
    return await log.append(MAILBOX_EVENTS.name, 0, batch)


@contextmanager
def consumer(kafka: str, topic: str) -> Iterator[Iterator[str]]:
    """The lines that a new process of the consumer prints."""
    command = [sys.executable, "-m", "docs.consumer", kafka, topic, f"{topic}.readers"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout
    finally:
        # Not killed: it leaves its group, so that the next one need not wait for its session to time out.
        process.send_signal(signal.SIGINT)
        process.wait(30)
        process.stdout.close()


@pytest.fixture
async def prefix(servers: Servers, topic_prefix: str) -> str:
    """Under this prefix there is an empty mailbox.events, and an empty topic for a copy of it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    topic = topic_prefix + MAILBOX_EVENTS.name
    await admin.create_topics([NewTopic(topic, 1, 1), NewTopic(f"{topic}.copy", 1, 1)])
    await admin.close()
    return topic_prefix


async def test_it_prints_valid_records_only_and_goes_on_where_it_was(servers: Servers, prefix: str):
    """A void record that comes before the valid one of the same `ce_id`: dropping repeats by id would lose the fact."""
    topic, log = prefix + MAILBOX_EVENTS.name, EventLog(servers.kafka, prefix=prefix)
    read, purged = MessageRead("msg_1", "mbx_1", "acc_1"), MailboxPurged("mbx_1", "acc_1")
    deleted = MailboxDeleted("mbx_1", "acc_1", "owner", moment(1_773_415_800_000))
    assert await append(log, read, position=0, event_id="cmd_1.0") == 0
    assert await append(log, deleted, position=0, event_id="cmd_2.0") == 1, "void: it claims a place that is taken"
    assert await append(log, deleted, position=2, event_id="cmd_2.0") == 2

    with consumer(servers.kafka, topic) as lines:
        assert next(lines) == f"0 0 mailbox.message-read.v1 {json.dumps(json.loads(encode(read)))}\n"
        assert next(lines) == f"0 2 mailbox.mailbox-deleted.v1 {json.dumps(json.loads(encode(deleted)))}\n"
        # Once this one is printed, the commit of the one before it has been acknowledged.
        assert await append(log, purged, position=3, event_id="cmd_3.0") == 3
        assert next(lines).startswith("0 3 mailbox.mailbox-purged.v1 ")

    assert await append(log, read, position=0, event_id="cmd_1.0") == 4
    assert await append(log, read, position=5, event_id="cmd_4.0") == 5
    with consumer(servers.kafka, topic) as lines:
        offsets = [int(next(lines).split()[1])]
        while offsets[-1] != 5:
            offsets.append(int(next(lines).split()[1]))
    assert offsets in ([5], [3, 5]), (
        "the last one may come again where the end came before its commit; a void one never"
    )
    await log.close()


async def everything_in(log: EventLog, topic: str) -> list[Record]:
    return [record async for records in log.read_on(topic, 0, 0) for record in records]


async def test_a_copy_holds_what_is_valid_and_nothing_in_it_is_void(servers: Servers, prefix: str):
    topic, log = MAILBOX_EVENTS.name, EventLog(servers.kafka, prefix=prefix)
    read, purged = MessageRead("msg_1", "mbx_1", "acc_1"), MailboxPurged("mbx_1", "acc_1")
    for number, claimed in enumerate([0, 0, 2, 2, 4]):
        event = purged if claimed else read
        assert await append(log, event, position=claimed, event_id=f"cmd_{number}.0") == number

    assert await copy(servers.kafka, servers.kafka, prefix + topic, 0, f"{prefix}{topic}.copy") == 3

    originals = [record for record in await everything_in(log, topic) if not record.void]
    copies = await everything_in(log, f"{topic}.copy")
    assert [record.offset for record in originals] == [0, 2, 4]
    assert [(record.offset, record.void) for record in copies] == [(0, False), (1, False), (2, False)]
    for original, copied in zip(originals, copies, strict=True):
        assert (copied.key, copied.value) == (original.key, original.value)
        assert first(copied.headers) == {**first(original.headers), "position": str(copied.offset)}
    await log.close()


async def test_a_copy_into_a_topic_that_holds_something_stops_and_says_so(servers: Servers, prefix: str):
    topic, log = MAILBOX_EVENTS.name, EventLog(servers.kafka, prefix=prefix)
    await append(log, MessageRead("msg_1", "mbx_1", "acc_1"), position=0, event_id="cmd_1.0")
    await copy(servers.kafka, servers.kafka, prefix + topic, 0, f"{prefix}{topic}.copy")
    with pytest.raises(RuntimeError, match=re.escape("wanted offset 0, got 1: delete it, begin again")):
        await copy(servers.kafka, servers.kafka, prefix + topic, 0, f"{prefix}{topic}.copy")
    await log.close()
