"""Sending by SMTP to servers that are none of ours: aiosmtpd, by every kind of connection and login, and GreenMail."""

import base64
from dataclasses import replace
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry

from domain.compose import compose
from domain.delivery import Accepted, Answer, Deferred, InDoubt, TokenRefused
from domain.outgoing import Access, Mailbox
from domain.tokens import MailServer, OAuthClient, OwnServers, Secrets
from gateways.providers.egress import Egress
from gateways.providers.measures import ProviderMeasures
from gateways.providers.smtp_sending import SmtpSending
from tests.gateways.providers.mail_logins import ALICE, TOKEN, named
from tests.gateways.providers.sending_contract import CC, HIDDEN, TO, TRACES, Recorder, a_mail
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import SmtpServer
from tests.support.mail_servers.greenmail import GreenMail
from tests.support.waiting import until

SECURITIES: list[Literal["tls", "starttls", "none"]] = ["tls", "starttls", "none"]
SECURE: list[Literal["tls", "none"]] = ["tls", "none"]
OAUTH = OAuthClient("https://a.test/", "https://t.test/", "client", None, ["mail"])


@pytest.fixture
def sender(authority: Authority) -> SmtpSending:
    return SmtpSending(Egress(True), ProviderMeasures(CollectorRegistry()), authority.trusting, 5)


@pytest.fixture
async def server(smtp_server: SmtpServer) -> SmtpServer:
    await smtp_server.reset()
    return smtp_server


def access(server: MailServer, token: str | None = None) -> Access:
    servers = OwnServers(server, server, OAUTH if token else None)
    return Access("con_1", ALICE, [], Secrets(token, servers=servers))


async def sent(sender: SmtpSending, who: Access, **changes: Any) -> tuple[Answer, Recorder]:
    notes = Recorder(seconds=10)
    return await sender.send(a_mail(ALICE, **changes), who, TRACES, notes), notes


@pytest.mark.parametrize("token", [None, TOKEN], ids=["password", "token"])
@pytest.mark.parametrize("security", SECURITIES)
async def test_a_mail_arrives_as_it_was_composed(
    sender: SmtpSending, server: SmtpServer, security: Any, token: str | None
) -> None:
    answer, notes = await sent(sender, access(named(server, security), token))
    assert (answer, notes.order) == (Accepted(), ["transmission"])
    told = await server.told()
    (mail,) = told["mails"]
    assert (mail["sender"], mail["recipients"], mail["login"]) == (ALICE, [TO, CC, HIDDEN], ALICE)
    assert base64.b64decode(mail["content"]) == compose(a_mail(ALICE), with_bcc=False)
    (login,) = told["logins"]
    assert (login["method"], login["ok"]) == ("XOAUTH2" if token else "PLAIN", True)
    assert login["security"] == ("plain" if security == "none" else security)


async def test_addresses_beyond_ascii_arrive(sender: SmtpSending, server: SmtpServer) -> None:
    recipients = [Mailbox("用户@例え.テスト", "用户"), Mailbox("bob@BÜCHER.example")]
    answer, _ = await sent(sender, access(named(server, "tls")), to=recipients, cc=[], bcc=[])
    assert answer == Accepted()
    (mail,) = (await server.told())["mails"]
    assert mail["recipients"] == ["用户@xn--r8jz45g.xn--zckzah", "bob@xn--bcher-kva.example"]
    assert "用户@xn--r8jz45g.xn--zckzah".encode() in base64.b64decode(mail["content"])


async def test_a_refused_login_sends_nothing(sender: SmtpSending, server: SmtpServer) -> None:
    assert (await sent(sender, access(named(server, "tls"), "canary-wrong")))[0] == TokenRefused()
    wrong = replace(named(server, "tls"), password="canary-wrong")
    answer, _ = await sent(sender, access(wrong))
    assert isinstance(answer, Deferred)
    assert (answer.code, answer.counted) == ("reauth_required", False)
    told = await server.told()
    assert (told["mails"], told["commands"].get("MAIL", 0)) == ([], 0)


async def test_no_starttls_no_mail(sender: SmtpSending, server: SmtpServer) -> None:
    """Whoever takes the offer away in between gets neither password nor mail."""
    await server.set(starttls=False)
    answer, _ = await sent(sender, access(named(server, "starttls")))
    assert isinstance(answer, Deferred)
    assert answer.code == "unreachable"
    assert (await server.told())["logins"] == []


async def test_nobody_else_s_certificate_is_believed(server: SmtpServer) -> None:
    stranger = SmtpSending(Egress(True), ProviderMeasures(CollectorRegistry()), Authority().trusting, 5)
    answer, _ = await sent(stranger, access(named(server, "tls")))
    assert isinstance(answer, Deferred)
    assert (answer.code, "certificate" in (answer.said or "")) == ("unreachable", True)
    assert (await server.told())["logins"] == []


@pytest.mark.parametrize(
    ("command", "failure", "kind", "mails"),
    [
        ("MAIL", {"dropAfter": True}, Deferred, 0),
        ("RCPT", {"dropBefore": True}, Deferred, 0),
        ("DATA", {"dropBefore": True}, Deferred, 0),
        ("END", {"dropBefore": True}, InDoubt, 0),
        ("END", {"dropAfter": True}, InDoubt, 1),
        ("END", {"reply": "451 4.3.0 canary"}, Deferred, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("security", ["tls", "none"])
async def test_a_connection_ends_in_doubt_after_the_dot_only(
    sender: SmtpSending, server: SmtpServer, security: Any, *, command: str, failure: Any, kind: type, mails: int
) -> None:
    await server.fail(command, **failure)
    answer, _ = await sent(sender, access(named(server, security)))
    assert isinstance(answer, kind), answer
    assert len((await server.told())["mails"]) == mails


async def test_megabytes_go_by_tls(sender: SmtpSending, server: SmtpServer) -> None:
    text = "".join(f".{number}\n" for number in range(60_000))
    answer, _ = await sent(sender, access(named(server, "tls")), text=text, html=None)
    assert answer == Accepted()
    (mail,) = (await server.told())["mails"]
    assert base64.b64decode(mail["content"]) == compose(a_mail(ALICE, text=text, html=None), with_bcc=False)


async def test_no_connection_is_left_open(sender: SmtpSending, server: SmtpServer) -> None:
    for _ in range(3):
        await sent(sender, access(named(server, "tls")))

    async def all_are_closed() -> bool:
        return (await server.told())["open"] == 0

    await until(all_are_closed, seconds=5)
    assert (await server.told())["connections"] == 3


async def test_greenmail_has_the_mail_in_its_mailbox(sender: SmtpSending, authority: Authority) -> None:
    async with GreenMail({ALICE: "canary-greenmail", TO: "canary-other"}, authority=authority) as greenmail:
        for password, token in (("canary-greenmail", None), (None, "canary-greenmail")):
            for security in SECURE:
                await greenmail.purge()
                port = greenmail.ports["smtps" if security == "tls" else "smtp"]
                who = access(MailServer("127.0.0.1", port, security, ALICE, password), token)
                assert (await sent(sender, who))[0] == Accepted()
                (mail,) = await greenmail.mails(TO)
                assert compose(a_mail(ALICE), with_bcc=False).rstrip() in mail["mimeMessage"].encode()
