"""Sending by SMTP: the contract, every step at which it can fail, and servers that mean harm."""

import time
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from domain.delivery import Accepted, Answer, Deferred, InDoubt, NotProven, Refused, TokenRefused
from domain.outgoing import Mailbox, OutgoingFile
from domain.tokens import OwnServers, Secrets
from gateways.providers.egress import Egress
from gateways.providers.measures import ProviderMeasures
from gateways.providers.sending import OUT_OF_TIME
from gateways.providers.smtp_sending import AT_ONCE, SmtpSending
from tests.gateways.providers.sending_contract import (
    TRACES,
    Recorder,
    SendingContract,
    a_mail,
)
from tests.gateways.providers.smtp_peer import CUT, SILENT, Act, SmtpPeer
from tests.gateways.providers.smtp_sends import DAY, OAUTH, TOKEN, SmtpSends, without_text
from tests.support.mail_servers.authority import Authority


@pytest.fixture
def sending(smtp_sends: SmtpSends) -> SmtpSends:
    return smtp_sends


@pytest.fixture
def peer(sending: SmtpSends) -> SmtpPeer:
    return sending.peer


class TestContract(SendingContract):
    """The contract, without drafts: SMTP has none."""


# ── before the dot: nothing went out, for sure ────────────────────────────────────────────────────────────────────────

EARLY = ["CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "CONTENT"]
BUSY = Deferred("mailbox_busy", counted=False)


EVENTS: list[Act | str] = [CUT, SILENT, Act(b"canary what"), Act(b"450 4.3.0 canary", drip=0.1), Act(b"")]


@pytest.mark.parametrize(
    ("step", "act"),
    [(step, act) for step in EARLY for act in EVENTS if (step, act) != ("CONTENT", SILENT)],
    ids=str,
)
async def test_a_failure_before_the_dot_is_no_doubt(sending: SmtpSends, peer: SmtpPeer, step: str, act: Any) -> None:
    peer.acts[step].append(act)
    began = time.perf_counter()
    answer, notes = await sending.tries(seconds=1.5 if step == "CONTENT" else 5.0)
    assert time.perf_counter() - began < 3
    assert isinstance(answer, Deferred), answer
    assert answer.code in {"unreachable", "timed_out", "answer_unreadable", "temporarily_refused"}
    assert answer.counted
    assert peer.mails == []
    assert step == "CONTENT" or notes.order == []
    peer.forget()
    assert isinstance((await sending.tries())[0], Accepted)
    assert len(peer.mails) == 1


@pytest.mark.parametrize(
    ("step", "reply", "expected"),
    [
        ("CONNECT", b"421 4.7.0 Try again later", Deferred("temporarily_refused")),
        ("CONNECT", b"554 5.7.1 No service", Deferred("temporarily_refused")),
        ("AUTH", b"454 4.7.0 Temporary authentication failure", Deferred("temporarily_refused")),
        ("AUTH", b"432 4.3.2 Concurrent connections limit exceeded", BUSY),
        ("AUTH", b"535 5.7.3 Authentication unsuccessful", TokenRefused()),
        ("AUTH", b"535 5.7.139 SmtpClientAuthentication is disabled for the Tenant", Refused("not_allowed")),
        ("MAIL", b"530 5.7.0 Authentication Required", TokenRefused()),
        ("MAIL", b"550 5.7.60 SMTP; Client does not have permissions to send as this sender", Refused("not_allowed")),
        ("MAIL", b"552 5.3.4 Message too big", Refused("message_too_large")),
        ("MAIL", b"503 5.5.1 Bad sequence", Deferred("server_error")),
        ("MAIL", b"451-4.3.0 Mail server\r\n451 4.3.0 temporarily busy", Deferred("temporarily_refused")),
        ("RCPT", b"421 4.3.2 Shutting down", Deferred("temporarily_refused")),
        ("RCPT", b"550 5.4.5 Daily user sending limit exceeded", DAY),
        ("RCPT", b"354 what", Deferred("answer_unreadable")),
        ("DATA", b"250 OK", Deferred("answer_unreadable")),
        ("DATA", b"451 4.3.0 later", Deferred("temporarily_refused")),
        ("DATA", b"554 5.5.1 Error: no valid recipients", Refused("recipients_refused")),
        # A second answer in the same breath would be taken for the one to the dot.
        ("DATA", b"354 go on\r\n250 2.0.0 OK", Deferred("answer_unreadable")),
        ("CONTENT", b"552 5.2.3 Too much", Refused("message_too_large")),
        ("CONTENT", b"421 4.4.2 Timeout", Deferred("temporarily_refused")),
    ],
    ids=str,
)
async def test_what_is_said_before_the_dot_is_what_it_says(
    sending: SmtpSends, peer: SmtpPeer, step: str, reply: bytes, expected: Answer
) -> None:
    peer.acts[step] += [Act(reply, after=10)] * 3
    answer, _ = await sending.tries()
    assert without_text(answer) == expected
    assert peer.mails == []


async def test_a_server_that_takes_a_mail_without_its_end_is_in_doubt(sending: SmtpSends, peer: SmtpPeer) -> None:
    peer.acts["CONTENT"].append(Act(b"250 2.0.0 OK", after=10))
    answer, _ = await sending.tries(a_mail(attachments=[OutgoingFile("a", "a/b", bytes(8 << 20))]))
    assert answer == InDoubt("answer_unreadable")


@pytest.mark.parametrize("act", [Act(after=1 << 20), Act(b"552 5.3.4 Too big", after=1 << 20), SILENT], ids=str)
async def test_a_mail_of_megabytes_that_is_cut_short_was_not_sent(sending: SmtpSends, peer: SmtpPeer, act: Any) -> None:
    peer.acts["CONTENT"].append(act)
    mail = a_mail(attachments=[OutgoingFile("a", "a/b", bytes(20 << 20))])
    answer, notes = await sending.tries(mail, seconds=1.5)
    assert isinstance(answer, Deferred | Refused), answer
    assert (peer.mails, notes.order) == ([], [])


async def test_a_wrong_password_is_for_its_owner_to_change(sending: SmtpSends, peer: SmtpPeer) -> None:
    sending.by_password = True
    assert isinstance((await sending.tries())[0], Accepted)
    answer = await sending.send(Recorder(), good=False)
    assert without_text(answer) == Deferred("reauth_required", counted=False)
    assert isinstance(answer, Deferred)
    assert answer.said == "535 5.7.8 Username and Password not accepted"


@pytest.mark.parametrize("extension", ["AUTH CRAM-MD5", "X"])
async def test_no_way_to_log_in_is_no_attempt(sending: SmtpSends, peer: SmtpPeer, extension: str) -> None:
    peer.extensions = [extension]
    answer, _ = await sending.tries()
    assert without_text(answer) == Deferred("reauth_required", counted=False)


async def test_nobody_there(sending: SmtpSends, free_port: int) -> None:
    access = sending.access()
    assert access.secrets.servers is not None
    nowhere = replace(access.secrets.servers.smtp, port=free_port)
    secrets = replace(access.secrets, servers=OwnServers(nowhere, nowhere, OAUTH))
    answer = await sending.sender.send(a_mail(), replace(access, secrets=secrets), TRACES, Recorder())
    assert without_text(answer) == Deferred("unreachable")


async def test_a_host_of_our_own_is_not_connected_to(sending: SmtpSends, peer: SmtpPeer, authority: Authority) -> None:
    sending.sender = SmtpSending(Egress(), ProviderMeasures(CollectorRegistry()), authority.trusting, 1)
    answer, _ = await sending.tries()
    assert isinstance(answer, Refused)
    assert (answer.code, peer.commands) == ("host_not_allowed", [])


@pytest.mark.parametrize("secrets", [Secrets(TOKEN), Secrets(servers=None)])
async def test_without_a_server_there_is_nothing_to_send_by(sending: SmtpSends, secrets: Secrets) -> None:
    access = replace(sending.access(), secrets=secrets)
    answer = await sending.sender.send(a_mail(), access, TRACES, Recorder())
    assert answer == Deferred("token_unavailable")


async def test_a_name_with_control_characters_is_told_to_nobody(sending: SmtpSends, peer: SmtpPeer) -> None:
    sending.username = "alice\r\nRCPT TO:<victim@evil.example>"
    answer, _ = await sending.tries()
    assert without_text(answer) == Deferred("reauth_required", counted=False)
    assert peer.commands == []


async def test_what_can_t_be_written_is_not_sent(sending: SmtpSends, peer: SmtpPeer) -> None:
    for mail in (
        a_mail(bcc=[Mailbox("victim@evil.example>\r\nRCPT TO:<x@evil.example")]),
        a_mail(subject="x\r\nBcc: victim@evil.example"),
        a_mail("alice"),
    ):
        answer, _ = await sending.tries(mail)
        assert isinstance(answer, Refused)
        assert answer.code == "message_refused"
    assert peer.commands == []


# ── after the dot ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"250 2.0.0 OK 1234 queued", Accepted()),
        (b"250-2.0.0 OK\r\n250-of many\r\n250 lines", Accepted()),
        (b"251 OK", Accepted()),
        (b"451 4.3.0 Try again", Deferred("temporarily_refused")),
        (b"421 4.3.0 Shutting down", Deferred("temporarily_refused")),
        (b"452 4.3.1 Full", Deferred("temporarily_refused")),
        (b"550 5.4.5 Daily user sending limit exceeded", DAY),
        (b"554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", DAY),
        (b"550 5.2.252 throttled", Deferred("rate_limited", counted=False)),
        (b"554 5.2.2 Mailbox full", Refused("mailbox_full")),
        (b"552 5.3.4 Too big", Refused("message_too_large")),
        (b"550 5.7.1 Looks like spam", Refused("message_refused")),
        (b"354 go on", InDoubt("answer_unreadable")),
        (b"199 what", InDoubt("answer_unreadable")),
        (b"999 what", InDoubt("answer_unreadable")),
        (b"OK", InDoubt("answer_unreadable")),
        (b"", InDoubt("answer_unreadable")),
        (b"2" * 40000, InDoubt("answer_unreadable")),
        (b"250-never\r\n" * 4000, InDoubt("answer_unreadable")),
        (b"250-cut short", InDoubt("timed_out")),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_the_answer_to_the_dot(sending: SmtpSends, peer: SmtpPeer, reply: bytes, expected: Answer) -> None:
    peer.acts["END"].append(Act(reply, takes=True))
    answer, notes = await sending.tries(seconds=0.5)
    assert without_text(answer) == expected
    assert notes.order == ["transmission"]
    assert len(peer.mails) == 1


async def test_a_slow_answer_is_waited_for_as_long_as_there_is_time(sending: SmtpSends, peer: SmtpPeer) -> None:
    """Longer than any other answer: RFC 5321, 4.5.3.2.6."""
    peer.acts["END"] += [Act(b"250 2.0.0 OK", takes=True, drip=0.05), Act(b"250 2.0.0 OK", takes=True, drip=0.05)]
    assert isinstance((await sending.tries(seconds=5.0))[0], Accepted)
    began = time.perf_counter()
    assert (await sending.tries(seconds=0.4))[0] == InDoubt("timed_out")
    assert time.perf_counter() - began < 2


async def test_smtp_can_t_be_asked(sending: SmtpSends) -> None:
    assert await sending.look(replace(TRACES, transmitted=True), last=True) == NotProven("nothing_found")
    assert AT_ONCE == 3


async def test_nothing_begins_once_the_time_is_over(sending: SmtpSends, peer: SmtpPeer) -> None:
    assert (await sending.tries(seconds=0.0))[0] == OUT_OF_TIME
    assert peer.commands == []


async def test_calls_are_counted_by_what_came_of_them(sending: SmtpSends, peer: SmtpPeer) -> None:
    peer.acts["END"] += [None, Act(takes=True), Act(b"550 5.4.5 limit")]
    for _ in range(3):
        await sending.tries()
    await sending.send(Recorder(), good=False)
    for outcome in ("ok", "in_doubt", "daily_quota", "token_refused"):
        labels = {"provider": "smtp", "operation": "send", "outcome": outcome}
        assert sending.registry.get_sample_value("postledger_provider_calls_total", labels) == 1
