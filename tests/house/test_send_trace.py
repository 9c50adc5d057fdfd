"""One trace from a request over the log and the workers to the webhook that tells of its end (W3C Trace Context)."""

import uuid
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from domain.send_commands import KnownConnection, RequestSend
from gateways.stores.sealing import place, seal
from schemas import commands, topics
from schemas.envelope import first
from schemas.ids import new_id
from schemas.send_message import MESSAGE, Person, SendMessage
from tests.support.send_house import OWNER, SCALE, Mailbox, SendHouse, send_house
from tests.support.servers import create_database, drop_database
from tests.support.webhook_house import receiving

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
#: Of other contexts: that a token was used is told once for many uses, and is of no one request.
APART = {"connection.commands", "connection.events"}


async def test_every_record_of_a_send_and_its_webhook_belong_to_the_trace_of_its_request(servers, tmp_path):
    """Through two attempts that fail and the tiers in between; and of one that waits for a timer."""
    name = f"test_{uuid.uuid4().hex}"
    async with (
        send_house(servers, create_database(servers, name), f"{name}.", tmp_path, rates="off") as house,
        receiving() as receiver,
    ):
        mailbox = await house.connect()
        await house.gmail.fail("drafts.create", user=mailbox.address, status=500, times=2)
        send = await asked(house, mailbox, receiver.url)
        later = await asked(house, mailbox, receiver.url, scheduled_at=datetime.now(UTC) + timedelta(seconds=1))
        await house.becomes(send, "sent", seconds=30)
        await house.becomes(later, "sent", seconds=30)
        async with receiver.came:
            await receiver.came.wait_for(lambda: sum(b"send.sent" in call.body for call in receiver.calls) == 2)
        of_timers = await traces(house, later)
        assert {topic: seen for topic, seen in of_timers.items() if seen != {TRACE_ID}} == {}
        found = await traces(house, send)
        assert {"send.commands", "send.events", "deliver.gmail", "webhook.deliver"} <= found.keys()
        assert any(topic.startswith("retry.") for topic in found)
        assert {topic: seen for topic, seen in found.items() if seen != {TRACE_ID}} == {}
        for call in receiver.calls:
            assert call.headers["traceparent"].split("-")[1] == TRACE_ID
    drop_database(servers, name)


async def asked(house: SendHouse, mailbox: Mailbox, callback: str, *, scheduled_at: datetime | None = None) -> str:
    """A send whose request belonged to a trace."""
    send = new_id("snd")
    key = (await house.house.keyring.get([mailbox.user]))[mailbox.user]
    message = SendMessage("Tea", "It is served.", "text", "It is served.", [Person("bob@example.org")])
    command = RequestSend(
        send=send,
        user=mailbox.user,
        owner=OWNER,
        message_id=f"<{send}@mail.localhost>",
        body=mailbox.digest,
        recipients=1,
        attachments=[],
        size=100,
        connections=[KnownConnection(mailbox.connection, mailbox.provider, mailbox.digest, "active")],
        message=seal(key, MESSAGE.dump_json(message), place("send", send, "message")),
        callback=seal(key, callback.encode(), place("send", send, "callback")),
        scale=SCALE,
        scheduled_at=scheduled_at,
    )
    await house.house.command_log.command(
        topics.SEND_COMMANDS.name,
        mailbox.user,
        command,
        vocabulary=commands.SEND,
        subject=send,
        trace={"traceparent": TRACEPARENT},
    )
    return send


async def traces(house: SendHouse, send: str) -> dict[str, set[str]]:
    """By topic, the ids of the traces of all records that name the send, or are about webhooks: there are no others of those.
    Empty where a record belongs to none."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for topic in (one.name for one in topics.TOPICS if one.name not in APART):
        for partition in await house.log.partitions(topic):
            start, _ = await house.log.bounds(topic, partition)
            async for records in house.log.read_on(topic, partition, start):
                for record in records:
                    if first(record.headers).get("ce_type", "").startswith("log."):
                        continue
                    if topic.startswith("webhook.") or send.encode() in (record.value or b""):
                        found[topic].add(first(record.headers).get("traceparent", "--").split("-")[1])
    return dict(found)
