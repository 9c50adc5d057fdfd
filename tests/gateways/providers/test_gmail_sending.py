"""Sending by Gmail: the contract, and what is Gmail's own; what went out is read from the double's receipts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes, policy
from typing import Any

import pytest

from domain.delivery import Accepted, Deferred, InDoubt, NotProven, ProvenSent, Refused, TokenRefused
from domain.outgoing import OutgoingFile, Traces
from domain.tokens import Secrets
from gateways.providers.gmail_calls import CALLS_AT_ONCE, MOST_BYTES, PER_MINUTE, UNITS
from tests.gateways.providers.gmail_house import SCOPED, SECONDS, TOKENS, Gmail, sending_by
from tests.gateways.providers.sending_contract import TRACES, Recorder, SendingContract, a_mail
from tests.support.gmail.caller import ALICE
from tests.support.gmail.double import GmailFake
from tests.support.gmail.methods import COSTS, SETTINGS


@pytest.fixture(scope="module")
async def running_gmail() -> AsyncIterator[GmailFake]:
    async with GmailFake(TOKENS) as gmail:
        yield gmail


@pytest.fixture
async def sending(running_gmail: GmailFake) -> AsyncIterator[Gmail]:
    async with sending_by(running_gmail) as sending:
        yield sending


class TestByDraft(SendingContract):
    """The contract, with leave to make drafts."""


class TestByLeaveToSendOnly(SendingContract):
    """The contract, with the scope `gmail.send` and no other."""

    @pytest.fixture
    def sending(self, sending: Gmail) -> Gmail:
        sending.token, sending.method, sending.drafts = "send", "messages.send", False
        return sending


# ── which way, and what is sent ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("token", "method"),
    [("alice", "drafts.send"), ("modify", "drafts.send"), ("compose", "drafts.send"), ("send", "messages.send")],
)
@pytest.mark.parametrize("size", [10, 4_000_000])
async def test_the_scopes_say_which_way_and_the_size_whether_it_is_uploaded(
    sending: Gmail, token: str, method: str, size: int
) -> None:
    sending.token = token
    content = bytes(range(256)) * (size // 256 + 1)
    files = [OutgoingFile("Zürich –.bin", "application/octet-stream", content[:size])]
    answer = await sending.send(Recorder(), a_mail(attachments=files))
    (receipt,) = sending.double.receipts()
    assert answer == Accepted(receipt.id, receipt.thread_id)
    assert receipt.method == method
    (mail,) = await sending.double.mails()
    (file,) = message_from_bytes(mail.delivered, policy=policy.default).iter_attachments()
    assert file.get_content() == content[:size]
    assert b"canary-hidden" in mail.sent
    assert b"canary-hidden" not in mail.delivered


@pytest.mark.parametrize("token", ["compose", "send"])
@pytest.mark.parametrize("size", [10, 4_000_000])
async def test_the_thread_is_named_whichever_way_a_mail_goes(sending: Gmail, token: str, size: int) -> None:
    sending.token = token
    thread = await sending.double.put(ALICE, f"To: {ALICE}\r\nSubject: plans\r\n\r\nhello\r\n".encode())
    # So that the name alone decides, and not what the mail says of itself.
    await sending.double.set(threadsByHeaders=False)
    files = [OutgoingFile("a.bin", "application/octet-stream", bytes(size))]
    answer = await sending.send(Recorder(), a_mail(thread_id=thread, attachments=files))
    assert isinstance(answer, Accepted)
    assert answer.thread_id == thread


async def test_a_reply_is_in_its_thread(sending: Gmail) -> None:
    before = b"From: c@example.test\r\nTo: a@gmail.test\r\nSubject: plans\r\nMessage-ID: <p@x.test>\r\n\r\nhello\r\n"
    thread = await sending.double.put(ALICE, before)
    own = {"In-Reply-To": "<p@x.test>", "References": "<p@x.test>"}
    answer = await sending.send(Recorder(), a_mail(subject="Re: plans", thread_id=thread, headers=own))
    assert isinstance(answer, Accepted)
    assert answer.thread_id == thread


@pytest.mark.parametrize("token", ["compose", "send"])
async def test_a_thread_that_is_none_is_said_before_anything_goes_out(sending: Gmail, token: str) -> None:
    sending.token = token
    answer = await sending.send(Recorder(), a_mail(thread_id="19ffffffffffffff"))
    assert answer == Refused("not_found", "Requested entity was not found.")
    assert sending.sent() == []


async def test_what_gmail_would_not_take_is_not_even_offered(sending: Gmail) -> None:
    files = [OutgoingFile("a.bin", "application/octet-stream", bytes(MOST_BYTES * 3 // 4))]
    assert await sending.send(Recorder(), a_mail(attachments=files)) == Refused("message_too_large")
    assert await sending.send(Recorder(), a_mail(subject="\ud800")) == Refused("message_refused")
    assert await sending.requests() == {}


async def test_a_mail_just_within_what_gmail_takes_goes_out(sending: Gmail) -> None:
    files = [OutgoingFile("a.bin", "application/octet-stream", bytes(26_000_000))]
    async with sending_by(sending.double, seconds=30) as patient:
        assert isinstance(await patient.send(Recorder(), a_mail(attachments=files)), Accepted)
    assert 35_000_000 < sending.double.receipts()[0].size <= MOST_BYTES


async def test_without_leave_or_a_token_nobody_is_called(sending: Gmail) -> None:
    for token in ("readonly", "metadata"):
        sending.token = token
        assert await sending.send(Recorder()) == Refused("scope_missing")
    bare = replace(sending.access(), secrets=Secrets())
    assert await sending.sender.send(a_mail(), bare, TRACES, Recorder()) == Deferred("token_unavailable")
    assert await sending.sender.look(TRACES, bare, last=False) == NotProven("token_unavailable")
    assert await sending.requests() == {}


async def test_of_one_mailbox_no_more_calls_are_made_at_once_than_google_bears(sending: Gmail) -> None:
    await sending.double.set(concurrentPerUser=CALLS_AT_ONCE, latency=0.02, unitsPerUser=None)
    answers = await asyncio.gather(*[sending.send(Recorder()) for _ in range(3 * CALLS_AT_ONCE)])
    assert [type(answer) for answer in answers] == [Accepted] * len(answers)
    await sending.double.set(concurrentPerUser=CALLS_AT_ONCE - 1)
    answers = await asyncio.gather(*[sending.send(Recorder()) for _ in range(CALLS_AT_ONCE)])
    assert any(isinstance(answer, Deferred) for answer in answers), "the double counts them"


async def test_scopes_that_are_not_there_any_more_are_missing(sending: Gmail) -> None:
    """The record says compose; the token has less, as after a consent that was narrowed."""
    sending.token = "compose"
    await sending.double.token("canary-token-compose", ALICE, SCOPED["readonly"].scope)
    answer = await sending.send(Recorder())
    assert isinstance(answer, Refused)
    assert (answer.code, answer.said) == ("scope_missing", "Request had insufficient authentication scopes.")


# ── faults of every form ──────────────────────────────────────────────────────────────────────────────────────────────

FORMS: list[tuple[dict[str, Any], str]] = [
    ({"drop": "inside"}, "cut"),
    ({"truncate": 20}, "answer_unreadable"),
    ({"truncate": 0}, "answer_unreadable"),
    ({"drip": 10}, "timed_out"),
    ({"huge": 1 << 30, "when": "after"}, "answer_unreadable"),
    ({"bomb": 1 << 24, "when": "after"}, "answer_unreadable"),
    ({"endlessHeaders": 0.1, "when": "after"}, "timed_out"),
    ({"status": 200, "body": {"threadId": "a"}, "when": "after"}, "answer_unreadable"),
    ({"status": 200, "body": {"id": "../../x"}, "when": "after"}, "answer_unreadable"),
    ({"status": 200, "body": "<h1>Hello</h1>", "when": "after"}, "answer_unreadable"),
    ({"status": 302, "headers": {"Location": "/x"}, "when": "after"}, "answer_unreadable"),
    ({"status": 400, "body": "<h1>Bad Request</h1>", "when": "after"}, "answer_unreadable"),
    ({"status": 404, "body": "<h1>Not Found</h1>", "when": "after"}, "answer_unreadable"),
    ({"status": 408, "body": {"error": {"code": 408}}, "when": "after"}, "server_error"),
    ({"kind": "gatewayTimeout", "when": "after"}, "server_error"),
    ({"kind": "unavailable", "retryAfter": 7, "when": "after"}, "server_error"),
]


@pytest.mark.parametrize("token", ["alice", "send"])
async def test_an_answer_that_leaves_it_open_is_a_doubt(sending: Gmail, token: str) -> None:
    sending.token, method = token, "messages.send" if token == "send" else "drafts.send"
    for number, (form, code) in enumerate(FORMS, 1):
        await sending.double.fail(method, **form)
        notes = Recorder(Traces(f"<snd-{number}@postledger.test>", f"mark-{number}"))
        mail = a_mail(message_id=notes.traces.message_id, marker=notes.traces.marker)
        answer = await sending.send(notes, mail)
        assert isinstance(answer, InDoubt), form
        assert answer.code in (("answer_unreadable", "connection_lost") if code == "cut" else (code,)), form
        assert len(sending.sent()) == number, form
        if token == "alice":
            found = await sending.look(notes.traces)
            assert isinstance(found, ProvenSent), form
            assert found.provider_message_id == sending.double.receipts()[-1].id
            assert await sending.once_more(notes) == Accepted(found.provider_message_id, found.thread_id)
            assert len(sending.sent()) == number, form


REFUSALS: list[tuple[dict[str, Any], Any]] = [
    ({"kind": "badRequest"}, Refused("message_refused", "Bad Request")),
    ({"kind": "failedPrecondition"}, Refused("mailbox_disabled", "Mail service not enabled")),
    ({"kind": "authError"}, TokenRefused()),
    ({"kind": "rateLimitExceeded", "retryAfter": 12}, ("rate_limited", 12, False)),
    ({"kind": "userRateLimitExceeded", "retryAfter": "-4"}, ("rate_limited", None, False)),
    ({"kind": "quotaExceeded", "retryAfter": "soon"}, ("rate_limited", None, False)),
    ({"kind": "dailyLimitExceeded", "retryAfter": 10**9}, ("daily_quota", 86_400, False)),
    ({"kind": "tooManyRequests", "retryAfter": "Fri, 31 Dec 2100 00:00:00 GMT"}, ("rate_limited", 86_400, False)),
    ({"kind": "concurrent"}, ("mailbox_busy", None, False)),
    ({"kind": "mailSending", "until": 3_600}, ("daily_quota", pytest.approx(3_600, abs=30), False)),
    ({"kind": "mailSending", "until": -3_600}, ("daily_quota", 0, False)),
    ({"kind": "mailSending", "until": 10**7}, ("daily_quota", 86_400, False)),
    ({"kind": "domainPolicy"}, Refused("not_allowed", "The domain administrators have disabled Gmail apps.")),
    ({"kind": "insufficientPermissions"}, Refused("scope_missing", "Request had insufficient authentication scopes.")),
    ({"kind": "uploadTooLarge"}, Refused("message_too_large", "Request Entity Too Large")),
    ({"status": 418, "body": {"error": {"message": "a teapot"}}}, ("server_error", None, True)),
]


@pytest.mark.parametrize("call", ["drafts.create", "drafts.send", "messages.send"])
async def test_a_refusal_in_google_s_words_is_certain(sending: Gmail, call: str) -> None:
    sending.token = "send" if call == "messages.send" else "alice"
    for form, expected in REFUSALS:
        notes = Recorder()
        await sending.double.fail(call, **form)
        answer = await sending.send(notes)
        if isinstance(expected, tuple):
            assert isinstance(answer, Deferred), form
            assert (answer.code, answer.retry_after, answer.counted) == expected, form
            assert answer.said
        else:
            assert answer == expected, form
        assert sending.sent() == []
    assert isinstance(await sending.once_more(notes), Accepted)
    assert len(sending.sent()) == 1


BEFORE_SENDING: list[tuple[dict[str, Any], Deferred]] = [
    ({"drop": "before"}, Deferred("unreachable")),
    ({"drop": "after"}, Deferred("unreachable")),
    ({"truncate": 10}, Deferred("answer_unreadable")),
    ({"body": {"id": "a/b"}, "status": 200}, Deferred("answer_unreadable")),
    ({"status": 404, "body": "<h1>Not Found</h1>"}, Deferred("answer_unreadable")),
    (
        {"kind": "unavailable", "retryAfter": 7},
        Deferred("server_error", 7, said="The service is currently unavailable."),
    ),
    ({"kind": "gatewayTimeout", "when": "after"}, Deferred("server_error")),
    ({"status": 429, "body": "<h1>", "retryAfter": 7}, Deferred("rate_limited", 7, counted=False)),
    ({"huge": 1 << 30}, Deferred("answer_unreadable")),
    ({"delayAfter": 2 * SECONDS}, Deferred("timed_out")),
]


async def test_what_fails_before_the_sending_leaves_nothing_open(sending: Gmail) -> None:
    for form, expected in BEFORE_SENDING:
        notes = Recorder()
        await sending.double.fail("drafts.create", **form)
        assert await sending.send(notes) == expected, form
        assert (notes.order, sending.sent()) == ([], []), form
    assert (await sending.requests()).keys() == {"drafts.create"}


async def test_where_nobody_listens_nothing_left(sending: Gmail) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with sending_by(sending.double, f"http://127.0.0.1:{port}") as lost:
        for traces in (TRACES, replace(TRACES, draft="r1")):
            assert await lost.send(Recorder(traces)) == Deferred("unreachable")
            assert await lost.look(traces) == NotProven("unreachable")
        lost.token = "send"
        notes = Recorder()
        assert await lost.send(notes) == Deferred("unreachable")
        assert notes.order == ["transmission"]


# ── what it costs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_units_are_those_of_the_projects_that_are_made_today() -> None:
    assert {name: COSTS[name] for name in UNITS} == UNITS
    assert SETTINGS["unitsPerUser"] == PER_MINUTE


async def test_calls_are_counted_by_method_and_outcome(sending: Gmail) -> None:
    await sending.double.fail("drafts.send", status=503)
    await sending.send(Recorder())
    labels = {"provider": "gmail", "operation": "drafts.send", "outcome": "server_error"}
    assert sending.registry.get_sample_value("postledger_provider_calls_total", labels) == 1
    await sending.send(Recorder())
    labels = {"provider": "gmail", "operation": "drafts.create", "outcome": "ok"}
    assert sending.registry.get_sample_value("postledger_provider_calls_total", labels) == 2
