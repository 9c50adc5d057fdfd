"""Sending through Outlook where the user granted to send and nothing else: one call, and nobody who could be asked."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from domain.delivery import Accepted, Answer, Deferred, InDoubt, NotProven, ProvenSent, Refused
from domain.outgoing import MARKER, Mailbox, OutgoingFile
from gateways.providers.graph_drafts import MIME_BYTES
from tests.gateways.providers.graph_house import SECONDS, Outlook, mail_of, only_sending, outlook_at
from tests.gateways.providers.sending_contract import Recorder, SendingContract
from tests.support.graph.caller import TOKENS
from tests.support.graph.double import GraphFake

THREAD = {"References": "<a@b.test> <c@d.test>", "In-Reply-To": "<c@d.test>"}


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[GraphFake]:
    async with GraphFake(TOKENS, mailsPerMinute=10_000, sentLag=0.0) as graph:
        yield graph


@pytest.fixture
async def outlook(running: GraphFake) -> AsyncIterator[Outlook]:
    await running.reset()
    async with outlook_at(running) as outlook:
        yield outlook


def of_size(size: int, name: str = "a.bin") -> OutgoingFile:
    return OutgoingFile(name, "application/x-bin", hashlib.shake_256(name.encode()).digest(size))


class TestOutlookThatMayOnlySend(SendingContract):
    """The contract, where the user granted `Mail.Send` alone: no draft, and nobody who could be asked."""

    @pytest.fixture
    async def sending(self, running: GraphFake) -> AsyncIterator[Outlook]:
        await running.reset()
        async with outlook_at(running, seconds=SECONDS) as outlook:
            yield only_sending(outlook)


async def test_all_of_a_mail_arrives_in_one_call(outlook: Outlook) -> None:
    files = [of_size(size, f"file ü {number}.bin") for number, size in enumerate([0, 1, 1_900_000])]
    mail = mail_of(attachments=files, reply_to=[Mailbox("desk@people.test")], headers=THREAD)
    assert await only_sending(outlook).send(Recorder(), mail) == Accepted()
    (receipt,) = outlook.double.receipts()
    assert receipt["to"] + receipt["cc"] + receipt["bcc"] == [one.address for one in mail.recipients]
    assert {MARKER: mail.marker, **mail.headers}.items() <= dict(receipt["headers"]).items()
    told = [(one["name"], one["size"], one["sha256"]) for one in receipt["attachments"]]
    assert told == [(one.name, len(one.content), hashlib.sha256(one.content).hexdigest()) for one in files]
    assert await outlook.counts() == {"sendMail": 1}


async def test_what_takes_a_draft_is_refused_before_anything_is_called(outlook: Outlook) -> None:
    """On either side of the limit; the largest that goes is not too large for one request of Graph's."""
    about = MIME_BYTES * 57 // 78
    sending, notes = only_sending(outlook), Recorder()
    large = mail_of(attachments=[of_size(about)])
    assert await sending.send(notes, large) == Refused("message_too_large_for_scopes")
    assert (notes.order, await outlook.counts()) == ([], {})
    assert await sending.send(Recorder(), mail_of(attachments=[of_size(about - 2000)])) == Accepted()
    torn = mail_of(headers={"X-A": "a\r\nBcc: eve@people.test"})
    assert await sending.send(Recorder(), torn) == Refused("message_refused")


async def test_who_may_read_as_well_is_told_what_became_of_a_lost_answer(outlook: Outlook) -> None:
    sending, notes = only_sending(outlook), Recorder()
    await sending.fail("failed after")
    assert isinstance(await sending.send(notes), InDoubt)
    calls = await outlook.counts()
    assert await sending.look(notes.traces) == NotProven("not_allowed")
    assert await outlook.counts() == calls, "nobody is asked who may not be asked"
    reading = replace(sending, token="reads", scopes=["Mail.Read", "Mail.Send"])
    assert isinstance(await reading.look(notes.traces), ProvenSent)
    other = replace(notes.traces, message_id="<snd-2@postledger.test>")
    assert await reading.look(other) == NotProven("nothing_found")


@pytest.mark.parametrize(
    ("failure", "answer"),
    [
        (
            {"status": 429, "code": "MailboxConcurrency", "retryAfter": "7"},
            Deferred("mailbox_busy", 7.0, counted=False),
        ),
        ({"status": 403, "code": "ErrorSendAsDenied"}, Refused("not_allowed")),
        ({"status": 400, "code": "ErrorInvalidRecipients"}, Refused("recipients_refused")),
        ({"status": 413, "code": "ErrorMessageSizeExceeded"}, Refused("message_too_large")),
        ({"status": 404, "body": "gone"}, InDoubt("answer_unreadable")),
        ({"status": 200, "body": {"id": "x"}, "when": "after"}, InDoubt("answer_unreadable")),
        ({"status": 503, "code": "ServiceUnavailable", "when": "after"}, InDoubt("server_error")),
    ],
)
async def test_what_graph_says_of_the_one_call(outlook: Outlook, failure: dict[str, Any], answer: Answer) -> None:
    await outlook.double.fail("sendMail", **failure)
    found = await only_sending(outlook).send(Recorder())
    assert replace(found, said=None) == answer
