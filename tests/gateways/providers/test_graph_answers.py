"""What Graph's answers come to: every row of the table, waits, and faults, on the double."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from domain.delivery import (
    Accepted,
    Answer,
    Deferred,
    InDoubt,
    NotProven,
    ProvenAbsent,
    Refused,
    TokenRefused,
)
from tests.gateways.providers.graph_house import Outlook, outlook_at
from tests.gateways.providers.sending_contract import TRACES, Recorder
from tests.support.graph.caller import TOKENS
from tests.support.graph.double import GraphFake

#: Seconds for a call that gets no answer in time.
SHORT = 0.4


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[GraphFake]:
    async with GraphFake(TOKENS, mailsPerMinute=10_000) as graph:
        yield graph


@pytest.fixture
async def outlook(running: GraphFake) -> AsyncIterator[Outlook]:
    await running.reset()
    async with outlook_at(running) as outlook:
        yield outlook


# ── what Graph says ───────────────────────────────────────────────────────────────────────────────────────────────────

ROWS: list[tuple[int, str, Answer]] = [
    (400, "ErrorInvalidRecipients", Refused("recipients_refused")),
    (400, "ErrorMimeContentInvalidBase64String", Refused("message_refused")),
    (400, "ErrorMimeContentInvalid", Refused("message_refused")),
    (400, "ErrorInvalidInternetHeader", Refused("message_refused")),
    (400, "InvalidInternetMessageHeader", Refused("message_refused")),
    (400, "InvalidInternetMessageHeaderCollection", Refused("message_refused")),
    (400, "ErrorInvalidPropertySet", Refused("message_refused")),
    (400, "ErrorInvalidIdMalformed", Refused("message_refused")),
    (400, "RequestBodyRead", Refused("message_refused")),
    (400, "BadRequest", Refused("message_refused")),
    (400, "Unheard", Deferred("server_error")),
    (400, "ErrorMessageSubmissionBlocked", Deferred("daily_quota", counted=False)),
    (400, "ErrorAttachmentSizeLimitExceeded", Refused("message_too_large")),
    (401, "InvalidAuthenticationToken", TokenRefused()),
    (401, "Unheard", TokenRefused()),
    (403, "ErrorAccessDenied", Refused("not_allowed")),
    (403, "ErrorSendAsDenied", Refused("not_allowed")),
    (403, "Unheard", Refused("not_allowed")),
    (403, "ErrorAccountSuspend", Refused("mailbox_disabled")),
    (403, "MailboxNotEnabledForRESTAPI", Refused("mailbox_disabled")),
    (403, "ErrorQuotaExceeded", Deferred("daily_quota", counted=False)),
    (403, "ErrorExceededMessageLimit", Deferred("daily_quota", counted=False)),
    (404, "ErrorItemNotFound", Deferred("temporarily_refused")),
    (404, "ErrorMailboxNotEnabledForRESTAPI", Refused("mailbox_disabled")),
    (404, "MailboxNotSupportedForRESTAPI", Refused("mailbox_disabled")),
    (404, "ErrorNonExistentMailbox", Refused("mailbox_disabled")),
    (404, "Unheard", Refused("not_found")),
    (409, "ErrorIrresolvableConflict", Deferred("temporarily_refused")),
    (409, "Unheard", Deferred("temporarily_refused")),
    (412, "Unheard", Deferred("temporarily_refused")),
    (413, "ErrorMessageSizeExceeded", Refused("message_too_large")),
    (413, "Unheard", Refused("message_too_large")),
    (418, "Unheard", Deferred("server_error")),
    (423, "Unheard", Deferred("temporarily_refused")),
    (429, "ApplicationThrottled", Deferred("rate_limited", counted=False)),
    (429, "TooManyRequests", Deferred("rate_limited", counted=False)),
    (429, "MailboxConcurrency", Deferred("mailbox_busy", counted=False)),
    (429, "ErrorTooManyObjectsOpened", Deferred("mailbox_busy", counted=False)),
    (429, "ErrorQuotaExceeded", Deferred("daily_quota", counted=False)),
    (429, "Unheard", Deferred("rate_limited", counted=False)),
    (500, "ErrorInternalServerTransientError", Deferred("server_error")),
    (502, "BadGateway", Deferred("server_error")),
    (503, "ServiceUnavailable", Deferred("server_error")),
    (503, "ErrorServerBusy", Deferred("rate_limited", counted=False)),
    (504, "GatewayTimeout", Deferred("server_error")),
    (507, "ErrorQuotaExceeded", Deferred("daily_quota", counted=False)),
    (509, "Unheard", Deferred("rate_limited", counted=False)),
]
#: What the same means of the call that sends, where that is something else.
OF_SENDING = {
    (400, "ErrorInvalidIdMalformed"): InDoubt("draft_gone"),
    (404, "ErrorItemNotFound"): InDoubt("draft_gone"),
}


async def test_what_graph_says_of_a_draft_that_is_to_be_made(outlook: Outlook) -> None:
    wrong = []
    for status, code, meant in ROWS:
        message = f"{code}\0 by\r\norder" + "r" * 600
        await outlook.double.fail("messages.create", status=status, code=code, message=message, retryAfter=9)
        notes = Recorder()
        answer = await outlook.send(notes)
        if answer != with_words(meant, (f"{code} by order" + "r" * 600)[:500], 9) or notes.order:
            wrong.append((status, code, answer))
    assert wrong == []
    assert outlook.sent() == []


async def test_what_graph_says_of_a_draft_that_is_to_be_sent(outlook: Outlook) -> None:
    notes, wrong = Recorder(), []
    await outlook.double.fail("messages.send", status=429)
    assert await outlook.send(notes) == Deferred("rate_limited", None, counted=False, said="It was ordered to fail.")
    for status, code, meant in ROWS:
        await outlook.double.fail("messages.send", status=status, code=code, message=f"{code} by order", retryAfter=9)
        answer = await outlook.once_more(notes)
        expected = InDoubt("server_error") if status >= 500 else meant
        expected = OF_SENDING.get((status, code)) or with_words(expected, f"{code} by order", 9)
        if answer != expected:
            wrong.append((status, code, answer))
    assert wrong == []
    assert outlook.sent() == []
    assert await outlook.look(notes.traces) == ProvenAbsent()
    assert isinstance(await outlook.once_more(notes), Accepted)
    assert len(outlook.sent()) == 1
    assert (await outlook.counts())["messages.create"] == 1


def with_words(meant: Answer, said: str, wait: float) -> Answer:
    match meant:
        case Deferred():
            return replace(meant, said=said, retry_after=wait)
        case Refused() | InDoubt():
            return replace(meant, said=said)
    return meant


WAITS: list[tuple[dict[str, Any], float | None]] = [
    ({}, None),
    ({"retryAfter": 120}, 120),
    ({"retryAfter": "0"}, 0),
    ({"retryAfter": "-5"}, None),
    ({"retryAfter": "soon"}, None),
    ({"retryAfter": "999999999999"}, 86_400),
    ({"retryAt": 3600}, 3600),
    ({"retryAt": -60}, 0),
    ({"retryAt": 1_000_000}, 86_400),
]


async def test_how_long_graph_asks_us_to_wait(outlook: Outlook) -> None:
    for words, seconds in WAITS:
        for operation in ("messages.create", "messages.send"):
            await outlook.double.fail(operation, status=429, **words)
            answer = await outlook.send(Recorder())
            assert isinstance(answer, Deferred)
            assert answer.retry_after == (seconds if seconds is None else pytest.approx(seconds, abs=5)), words
            assert not answer.counted
    await outlook.double.fail("messages.list", status=429, retryAfter=7)
    assert await outlook.look(TRACES) == NotProven("rate_limited", 7)


# ── faults ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LOST, UNREADABLE = InDoubt("connection_lost"), InDoubt("answer_unreadable")
BROKEN, LATE = InDoubt("server_error"), InDoubt("timed_out")
#: What happens to the call that sends, what it comes to, and how many mails go out.
FAULTS: list[tuple[dict[str, Any], InDoubt, int]] = [
    ({"drop": "before"}, LOST, 0),
    ({"drop": "after"}, LOST, 1),
    ({"drop": "inside"}, LOST, 1),
    ({"drop": "inside", "status": 429, "when": "before"}, UNREADABLE, 0),
    ({"status": 504, "when": "after", "body": ""}, BROKEN, 1),
    ({"status": 503, "body": "<h1>away</h1>"}, BROKEN, 0),
    ({"status": 408, "body": {"error": {"code": "Timeout"}}}, BROKEN, 0),
    ({"status": 499, "body": "", "when": "after"}, BROKEN, 1),
    ({"status": 400, "truncate": 20}, UNREADABLE, 0),
    ({"status": 403, "body": "<h1>blocked</h1>"}, UNREADABLE, 0),
    ({"status": 429, "body": {"error": {"message": "no"}}}, UNREADABLE, 0),
    ({"status": 401, "body": ""}, UNREADABLE, 0),
    ({"status": 404, "body": "", "when": "after"}, UNREADABLE, 1),
    ({"status": 200, "body": {"error": {"code": "BadRequest"}}}, UNREADABLE, 0),
    ({"status": 204, "body": "", "when": "after"}, UNREADABLE, 1),
    ({"status": 302, "body": "", "headers": {"Location": "/v1.0/me"}}, UNREADABLE, 0),
    ({"status": 400, "huge": 3 << 20}, UNREADABLE, 0),
    ({"status": 400, "bomb": 64 << 20}, UNREADABLE, 0),
    ({"delayAfter": 30}, LATE, 1),
    ({"status": 400, "drip": 3}, LATE, 0),
    ({"endlessHeaders": 0.05, "status": 400}, LATE, 0),
]


@pytest.mark.parametrize(("fault", "doubt", "mails"), FAULTS, ids=lambda value: str(value)[:60])
async def test_a_fault_of_the_call_that_sends_is_a_doubt(
    outlook: Outlook, fault: dict[str, Any], doubt: InDoubt, mails: int
) -> None:
    notes = Recorder(noted_takes=30 - SHORT if doubt == LATE else 0)
    await outlook.double.fail("messages.send", **fault)
    answer = await outlook.send(notes)
    assert isinstance(answer, InDoubt)
    assert replace(answer, said=None) == doubt
    assert len(outlook.sent()) == mails
    if mails:
        found = await outlook.proven(notes.traces)
        assert found.provider_message_id == outlook.double.receipts()[0]["id"]
    else:
        assert await outlook.look(notes.traces) == ProvenAbsent()
    assert isinstance(await outlook.once_more(notes), Accepted)
    assert len(outlook.sent()) == 1
    assert (await outlook.counts())["messages.create"] == 1


#: What happens to a call before that, and what the attempt comes to: nothing went out, for sure.
EARLIER: list[tuple[dict[str, Any], Deferred]] = [
    ({"drop": "before"}, Deferred("unreachable")),
    ({"drop": "after"}, Deferred("unreachable")),
    ({"drop": "inside"}, Deferred("answer_unreadable")),
    ({"truncate": 20}, Deferred("answer_unreadable")),
    ({"body": "<h1>Hello</h1>"}, Deferred("answer_unreadable")),
    ({"status": 403, "body": "<h1>blocked</h1>"}, Deferred("answer_unreadable")),
    ({"status": 201, "body": {}}, Deferred("answer_unreadable")),
    ({"status": 201, "body": {"id": "../../me"}}, Deferred("answer_unreadable")),
    ({"status": 201, "body": {"id": 7}}, Deferred("answer_unreadable")),
    ({"huge": 40 << 20}, Deferred("answer_unreadable")),
    ({"bomb": 64 << 20}, Deferred("answer_unreadable")),
    ({"delayAfter": 30}, Deferred("timed_out")),
    ({"drip": 3}, Deferred("timed_out")),
]


async def test_a_fault_before_that_sends_nothing_and_notes_nothing(outlook: Outlook) -> None:
    for fault, deferred in EARLIER:
        notes = Recorder(seconds=SHORT if deferred.code == "timed_out" else 30)
        await outlook.double.fail("messages.create", **fault)
        assert await outlook.send(notes) == deferred, fault
        assert notes.order == []
    assert outlook.sent() == []
    assert "messages.send" not in await outlook.counts()


async def test_where_nobody_listens(outlook: Outlook) -> None:
    notes = Recorder()
    await outlook.double.fail("messages.send", status=429)
    await outlook.send(notes)
    async with outlook_at(outlook.double, url="http://127.0.0.1:1/v1.0") as nowhere:
        assert await nowhere.send(Recorder()) == Deferred("unreachable")
        assert await nowhere.once_more(notes) == Deferred("unreachable")
        assert await nowhere.look(notes.traces) == NotProven("unreachable")


async def test_a_graph_that_dies_before_the_call_that_sends_leaves_no_doubt_where_no_byte_left() -> None:
    async with GraphFake(TOKENS) as graph, outlook_at(graph) as outlook:

        @dataclass
        class Killing(Recorder):
            async def draft(self, draft: str, message: str | None = None) -> None:
                await super().draft(draft, message)
                await graph.kill()
                # The connection that is kept open has to be seen to be closed, or a byte would be written to it.
                await asyncio.sleep(0.1)

        assert await outlook.send(Killing()) == Deferred("unreachable")
        assert outlook.sent() == []
