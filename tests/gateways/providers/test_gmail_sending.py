"""Sending by Gmail: the contract, and what is Gmail's own; what went out is read from the double's receipts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from email import message_from_bytes, policy
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from domain.delivery import (
    Accepted,
    Deferred,
    InDoubt,
    NotProven,
    ProvenAbsent,
    ProvenSent,
    Refused,
    TokenRefused,
)
from domain.outgoing import Access, OutgoingFile, Traces
from domain.tokens import Secrets
from gateways.providers.calls import Calls
from gateways.providers.egress import Egress
from gateways.providers.gmail_calls import MOST_BYTES, PER_MINUTE, UNITS
from gateways.providers.gmail_sending import GmailSending
from gateways.providers.measures import ProviderMeasures
from tests.gateways.providers.house import TRUSTING
from tests.gateways.providers.sending_contract import (
    MARK,
    MESSAGE_ID,
    TRACES,
    Fault,
    Recorder,
    Sending,
    SendingContract,
    Sent,
    a_mail,
)
from tests.support.gmail.caller import ALICE
from tests.support.gmail.caller import TOKENS as SCOPED
from tests.support.gmail.double import GmailFake
from tests.support.gmail.methods import COSTS, SETTINGS

SECONDS = 1.0
TOKENS = {f"canary-token-{name}": token for name, token in SCOPED.items()}
FAULTS: dict[Fault, dict[str, Any]] = {
    "cut before": {"drop": "before"},
    "cut after": {"drop": "after"},
    "failed before": {"status": 504},
    "failed after": {"status": 504, "when": "after"},
    "silent before": {"delay": 2 * SECONDS, "drop": "before"},
    "silent after": {"delayAfter": 2 * SECONDS},
}


@dataclass
class Gmail(Sending):
    gmail: GmailFake | None = None
    token: str = "alice"
    method: str = "drafts.send"

    @property
    def double(self) -> GmailFake:
        assert self.gmail is not None
        return self.gmail

    def access(self, *, good: bool = True) -> Access:
        token = f"canary-token-{self.token}" if good else "nobody-s-token"
        return Access("con_1", ALICE, SCOPED[self.token].scope.split(), Secrets(token))

    def sent(self) -> list[Sent]:
        return [Sent(one.marker, one.message_id_before, list(one.recipients)) for one in self.double.receipts()]

    async def fail(self, fault: Fault) -> None:
        await self.double.fail(self.method, **FAULTS[fault])

    async def requests(self) -> dict[str, int]:
        told = await self.double.told()
        return {name: number for name, number in told["requests"].items() if number}


@pytest.fixture(scope="module")
async def running_gmail() -> AsyncIterator[GmailFake]:
    async with GmailFake(TOKENS) as gmail:
        yield gmail


@pytest.fixture
async def gmail(running_gmail: GmailFake) -> GmailFake:
    await running_gmail.reset()
    # What a search finds is at once to be found; the tests that are about the lag say so.
    await running_gmail.set(indexLag=0.0)
    return running_gmail


@pytest.fixture
async def sending(gmail: GmailFake) -> AsyncIterator[Gmail]:
    registry = CollectorRegistry()
    async with Calls.opened(Egress(True), ProviderMeasures(registry), TRUSTING, SECONDS) as calls:
        yield Gmail(GmailSending(calls, URL(gmail.url)), registry, secrets=set(TOKENS), gmail=gmail)


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
async def test_a_reply_is_in_its_thread(sending: Gmail, token: str, size: int) -> None:
    sending.token = token
    before = b"From: c@example.test\r\nTo: a@gmail.test\r\nSubject: plans\r\nMessage-ID: <p@x.test>\r\n\r\nhello\r\n"
    thread = await sending.double.put(ALICE, before)
    own = {"In-Reply-To": "<p@x.test>", "References": "<p@x.test>"}
    files = [OutgoingFile("a.bin", "application/octet-stream", bytes(size))]
    mail = a_mail(subject="Re: plans", thread_id=thread, headers=own, attachments=files)
    answer = await sending.send(Recorder(), mail)
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
    async with Calls.opened(Egress(True), ProviderMeasures(CollectorRegistry()), TRUSTING, 30) as patient:
        sending.sender = GmailSending(patient, URL(sending.double.url))
        assert isinstance(await sending.send(Recorder(), a_mail(attachments=files)), Accepted)
    assert 35_000_000 < sending.double.receipts()[0].size <= MOST_BYTES


async def test_without_leave_or_a_token_nobody_is_called(sending: Gmail) -> None:
    for token in ("readonly", "metadata"):
        sending.token = token
        assert await sending.send(Recorder()) == Refused("scope_missing")
    bare = replace(sending.access(), secrets=Secrets())
    assert await sending.sender.send(a_mail(), bare, TRACES, Recorder()) == Deferred("token_unavailable")
    assert await sending.sender.look(TRACES, bare, last=False) == NotProven("token_unavailable")
    assert await sending.requests() == {}


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
    async with Calls.opened(Egress(True), ProviderMeasures(CollectorRegistry()), TRUSTING, SECONDS) as calls:
        sending.sender = GmailSending(calls, URL(f"http://127.0.0.1:{port}"))
        for traces in (TRACES, replace(TRACES, draft="r1")):
            assert await sending.send(Recorder(traces)) == Deferred("unreachable")
            assert await sending.look(traces) == NotProven("unreachable")
        sending.token = "send"
        notes = Recorder()
        assert await sending.send(notes) == Deferred("unreachable")
        assert notes.order == ["transmission"]


# ── drafts, and looks ─────────────────────────────────────────────────────────────────────────────────────────────────


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
    for last, most in ((False, 20), (True, 60)):
        before = (await sending.requests()).get("messages.get", 0)
        assert await sending.look(notes.traces, last=last) == NotProven("nothing_found")
        assert (await sending.requests())["messages.get"] - before == most


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
        await sending.double.fail(method, **form)
        found = await sending.look(notes.traces)
        assert isinstance(found, ProvenSent) if expected is ProvenSent else found == expected, (method, form)
        assert (await sending.double.told())["failures"] == []
    assert len(sending.sent()) == 1


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
