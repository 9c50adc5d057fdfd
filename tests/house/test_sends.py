"""Sends round the whole ring: asked for, decided, tried at a provider, and on record."""

import pytest

from domain.send_events import AttemptStarted, DraftRecorded, SendDispatched, SendRequested, SendSent
from tests.support.send_house import send_house


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path):
    async with send_house(servers, database, topic_prefix, tmp_path) as found:
        yield found


async def test_a_mail_goes_out_once_and_each_step_of_it_is_on_record(house):
    mailbox = await house.connect()
    send = await house.send(mailbox)
    row = await house.becomes(send, "sent")
    (mail,) = await house.gmail.mails()
    assert mail.recipients == ("bob@example.org",)
    assert row["provider_message_id"] == mail.id
    kinds = [type(event) for event in await house.history(send)]
    assert [
        kind for kind in kinds if kind in (SendRequested, SendDispatched, AttemptStarted, DraftRecorded, SendSent)
    ] == [
        SendRequested,
        SendDispatched,
        AttemptStarted,
        DraftRecorded,
        SendSent,
    ]


async def test_outlook_sends_as_well_and_smtp_too(house, caplog):
    """And the house has started without a warning; FastStream would warn of topics that it is not to make."""
    said = [one for one in caplog.get_records("setup") if one.name == "gateways.log.subscriptions"]
    assert [one.getMessage() for one in said if one.levelname == "WARNING"] == []
    outlook = await house.connect("outlook")
    send = await house.send(outlook)
    row = await house.becomes(send, "sent")
    assert row["provider_message_id"]
    assert len(house.graph.receipts()) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_attempt_in_doubt_is_looked_into_and_ends_with_one_mail(house, when):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.send", status=504, when=when)
    send = await house.send(mailbox)
    row = await house.becomes(send, "sent", seconds=60)
    assert len(house.gmail.receipts()) == 1
    kinds = [type(event).__name__ for event in await house.history(send)]
    assert "AttemptInDoubt" in kinds
    assert row["attempt"] == (2 if when == "before" else 1)
