"""Drafts in Gmail, and what a look can show of them: what is on record is sent, once, and nothing else is claimed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from domain.delivery import Accepted, Deferred, InDoubt, NotProven, ProvenAbsent, ProvenSent, TokenRefused
from domain.outgoing import Traces
from tests.gateways.providers.gmail_house import SECONDS, TOKENS, Gmail, sending_by
from tests.gateways.providers.sending_contract import MARK, MESSAGE_ID, TRACES, Recorder, a_mail
from tests.support.gmail.caller import ALICE
from tests.support.gmail.double import GmailFake


@pytest.fixture(scope="module")
async def running_gmail() -> AsyncIterator[GmailFake]:
    async with GmailFake(TOKENS) as gmail:
        yield gmail


@pytest.fixture
async def sending(running_gmail: GmailFake) -> AsyncIterator[Gmail]:
    async with sending_by(running_gmail) as sending:
        yield sending


async def drafts_of(sending: Gmail) -> list[str]:
    return (await sending.double.told())["drafts"][ALICE]


async def test_a_recorded_draft_is_what_is_sent(sending: Gmail) -> None:
    notes = Recorder(noted_takes=40.0)
    await sending.send(notes)
    assert await drafts_of(sending) == [notes.traces.draft]
    for _ in range(2):
        again = Recorder(replace(notes.traces, earlier=True))
        assert isinstance(await sending.send(again, a_mail(subject="another")), Accepted)
        assert again.order == []
    assert (await sending.requests())["drafts.create"] == 1
    (receipt,) = sending.double.receipts()
    assert receipt.draft_id == notes.traces.draft


async def test_two_workers_with_one_draft_send_it_once(sending: Gmail) -> None:
    notes = Recorder(noted_takes=40.0)
    await sending.send(notes)
    await sending.double.set(latency=0.1)
    answers = await asyncio.gather(*(sending.once_more(notes) for _ in range(4)))
    assert all(isinstance(answer, Accepted) for answer in answers)
    assert len(set(map(repr, answers))) == 1
    assert len(sending.sent()) == 1


async def test_a_sending_that_arrives_late_is_no_second_mail(sending: Gmail) -> None:
    """The look is right when it says that nothing was sent, and wrong a moment later: the draft decides."""
    await sending.double.fail("drafts.send", delay=1.6 * SECONDS)
    notes = Recorder()
    assert await sending.send(notes) == InDoubt("timed_out")
    assert await sending.look(notes.traces) == ProvenAbsent()
    assert isinstance(await sending.once_more(notes), Accepted)
    async with asyncio.timeout(10):
        while (await sending.double.told())["open"]:
            await asyncio.sleep(0.05)
    assert (await sending.double.told())["answers"]["drafts.send"] == {"200": 1, "404": 1}
    assert len(sending.sent()) == 1


async def test_a_worker_that_dies_while_it_sends(sending: Gmail) -> None:
    await sending.double.fail("drafts.send", delayAfter=0.8 * SECONDS)
    notes = Recorder()
    task = asyncio.create_task(sending.send(notes))
    async with asyncio.timeout(10):
        while not sending.sent():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await sending.look(notes.traces), ProvenSent)
    assert isinstance(await sending.once_more(notes), Accepted)
    assert len(sending.sent()) == 1


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"status": 504, "when": "after"}])
async def test_a_draft_that_is_on_no_record_is_taken_up(sending: Gmail, fault: dict[str, Any]) -> None:
    await sending.double.fail("drafts.create", **fault)
    assert isinstance(await sending.send(Recorder()), Deferred)
    (orphan,) = await drafts_of(sending)
    assert isinstance(await sending.once_more(Recorder()), Accepted)
    assert (await sending.requests())["drafts.create"] == 1
    assert [one.draft_id for one in sending.double.receipts()] == [orphan]


async def test_a_draft_of_somebody_else_s_is_left_alone(sending: Gmail) -> None:
    """With the same Message-ID and another marker, as a user's copy of it may have."""
    stranger = a_mail(marker="another-mark", subject="theirs")
    await sending.send(Recorder(replace(TRACES, marker="another-mark"), noted_takes=40.0), stranger)
    (theirs,) = await drafts_of(sending)
    notes = Recorder()
    assert isinstance(await sending.once_more(notes), Accepted)
    assert await drafts_of(sending) == [theirs]
    assert [one.marker for one in sending.double.receipts()] == [MARK]


async def test_a_search_that_fails_hinders_nothing(sending: Gmail) -> None:
    await sending.double.fail("drafts.list", kind="forbidden")
    assert isinstance(await sending.once_more(Recorder()), Accepted)
    # By GET, on a connection that was open already, aiohttp asks a second time.
    await sending.double.fail("drafts.list", drop="before", times=2)
    assert await sending.once_more(Recorder()) == Deferred("unreachable")


async def test_a_draft_that_was_thrown_away_is_a_doubt_and_stays_one(sending: Gmail) -> None:
    notes = Recorder(noted_takes=40.0)
    await sending.send(notes)
    gone = replace(notes.traces, draft="r-404")
    assert await sending.once_more(Recorder(gone)) == InDoubt("draft_gone")
    for last in (False, True):
        assert await sending.look(gone, last=last) == NotProven("nothing_found")
    assert sending.sent() == []


async def test_while_the_index_lags_nothing_is_claimed(sending: Gmail) -> None:
    await sending.double.set(indexLag=3_600.0, draftLag=3_600.0)
    await sending.fail("cut after")
    notes = Recorder()
    assert isinstance(await sending.send(notes), InDoubt)
    # A draft that can still be read though it was sent: sending it again is what shows it.
    assert await sending.look(notes.traces) == ProvenAbsent()
    assert await sending.once_more(notes) == InDoubt("draft_gone")
    await sending.double.set(draftLag=0.0)
    assert await sending.look(notes.traces) == NotProven("nothing_found")
    await sending.double.set(indexLag=0.0)
    assert isinstance(await sending.look(notes.traces), ProvenSent)
    assert len(sending.sent()) == 1


@pytest.mark.parametrize("message_id", ["kept", "rewritten"])
async def test_a_mail_is_known_by_its_id_or_by_its_marker(sending: Gmail, message_id: str) -> None:
    await sending.double.set(messageId=message_id)
    await sending.fail("cut after")
    notes = Recorder()
    await sending.send(notes)
    for number in range(5):
        other = a_mail(marker=f"m-{number}", message_id=f"<other-{number}@postledger.test>")
        await sending.send(Recorder(Traces(other.message_id, other.marker)), other)
    before = await sending.requests()
    receipt = sending.double.receipts()[0]
    assert await sending.look(notes.traces) == ProvenSent(receipt.id, receipt.thread_id)
    reads = (await sending.requests())["messages.get"] - before.get("messages.get", 0)
    assert reads == (1 if message_id == "kept" else 6)


async def test_of_a_busy_mailbox_so_much_is_read_and_no_more(sending: Gmail) -> None:
    await sending.double.set(unitsPerUser=None)
    old = (f"Subject: {n}\r\nTo: x@example.test\r\nFrom: {ALICE}\r\n\r\n".encode() for n in range(70))
    await sending.fail("cut after")
    notes = Recorder()
    await sending.send(notes)
    for raw in old:
        await sending.double.put(ALICE, raw, "SENT")
    for last, most in ((False, 20), (True, 60), (False, 60)):
        assert await sending.look(notes.traces, last=last) == NotProven("nothing_found")
        assert (await sending.requests())["messages.get"] == most, "what was read once is not read again"


async def test_those_who_look_at_once_read_each_mail_once_and_what_is_new(sending: Gmail) -> None:
    await sending.double.set(unitsPerUser=None, latency=0.02)
    await sending.fail("cut after")
    notes = Recorder()
    await sending.send(notes)
    lost = replace(notes.traces, marker="m-lost", message_id="<lost@postledger.test>", draft=None)
    for number in range(30):
        await sending.double.put(ALICE, f"Subject: {number}\r\nFrom: {ALICE}\r\n\r\n".encode(), "SENT")
    answers = await asyncio.gather(*[sending.look(lost) for _ in range(6)])
    assert answers == [NotProven("nothing_found")] * 6
    assert (await sending.requests())["messages.get"] == 20
    await sending.double.put(ALICE, f"Message-ID: {lost.message_id}\r\nFrom: {ALICE}\r\n\r\n".encode(), "SENT")
    assert isinstance(await sending.look(lost), ProvenSent)
    assert (await sending.requests())["messages.get"] == 21


async def test_a_mail_that_only_came_in_is_not_one_that_was_sent(sending: Gmail) -> None:
    forged = f"Message-ID: {MESSAGE_ID}\r\nX-Postledger-Marker: {MARK}\r\nTo: {ALICE}\r\n\r\nhello\r\n".encode()
    await sending.double.put(ALICE, forged)
    assert await sending.look(TRACES) == NotProven("nothing_found")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("compose", NotProven("not_allowed")),
        ("metadata", ProvenSent),
        ("readonly", ProvenSent),
        ("send", NotProven("not_allowed")),
    ],
)
async def test_a_look_takes_leave_to_read(sending: Gmail, token: str, expected: Any) -> None:
    await sending.fail("cut after")
    notes = Recorder()
    await sending.send(notes)
    sending.token = token
    traces = replace(notes.traces, draft=None) if token == "metadata" else notes.traces
    found = await sending.look(traces)
    assert isinstance(found, ProvenSent) if expected is ProvenSent else found == expected


LOOKS: list[tuple[str, dict[str, Any], Any]] = [
    ("drafts.get", {"kind": "authError"}, TokenRefused()),
    ("drafts.get", {"kind": "unavailable", "retryAfter": 7}, NotProven("server_error", 7)),
    ("drafts.get", {"kind": "rateLimitExceeded", "retryAfter": 7}, NotProven("rate_limited", 7)),
    ("drafts.get", {"kind": "domainPolicy"}, NotProven("not_allowed")),
    ("drafts.get", {"status": 404, "body": "<h1>Not Found</h1>"}, NotProven("server_error")),
    ("drafts.get", {"status": 200, "body": {"id": "r-1"}}, NotProven("server_error")),
    ("drafts.get", {"status": 200, "body": "[]"}, NotProven("server_error")),
    ("drafts.get", {"delay": 2 * SECONDS, "drop": "before"}, NotProven("timed_out")),
    ("drafts.get", {"huge": 1 << 30}, NotProven("server_error")),
    ("messages.list", {"kind": "authError"}, TokenRefused()),
    ("messages.list", {"kind": "concurrent"}, NotProven("rate_limited")),
    ("messages.list", {"truncate": 5}, NotProven("server_error")),
    ("messages.list", {"kind": "forbidden"}, ProvenSent),
    ("messages.get", {"kind": "backendError"}, NotProven("server_error")),
    ("messages.get", {"kind": "mailSending", "until": 60}, NotProven("rate_limited", pytest.approx(60, abs=30))),
]


async def test_a_look_that_fails_proves_nothing(sending: Gmail) -> None:
    await sending.fail("cut after")
    notes = Recorder()
    await sending.send(notes)
    for method, form, expected in LOOKS:
        sending.restart()
        await sending.double.fail(method, **form)
        found = await sending.look(notes.traces)
        assert isinstance(found, ProvenSent) if expected is ProvenSent else found == expected, (method, form)
        assert (await sending.double.told())["failures"] == []
    assert len(sending.sent()) == 1
