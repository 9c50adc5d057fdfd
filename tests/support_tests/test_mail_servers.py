"""The mail servers of the tests, judged by aiosmtplib, aioimaplib and imaplib."""

import asyncio
import base64
import imaplib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosmtplib
import pytest
from aioimaplib import aioimaplib

from tests.support.mail_servers.double import ImapServer, MailDouble, SmtpServer
from tests.support.oauth_server.server import Client, OAuthServer

ALICE = "alice@gmail.test"
TOKEN = "t" * 2500  # as long as those of Entra
USERS = {ALICE: {"password": 'pass "word" \\', "token": TOKEN}}
MAIL = b"From: alice@gmail.test\r\nTo: bob@gmail.test\r\nSubject: hello\r\n\r\n.dots\r\n"


@pytest.fixture(scope="module")
async def running_smtp() -> AsyncIterator[SmtpServer]:
    async with SmtpServer(USERS) as server:
        yield server


@pytest.fixture(scope="module")
async def running_imap() -> AsyncIterator[ImapServer]:
    async with ImapServer(USERS) as server:
        yield server


@pytest.fixture
async def smtp(running_smtp: SmtpServer) -> SmtpServer:
    await running_smtp.reset()
    return running_smtp


@pytest.fixture
async def imap(running_imap: ImapServer) -> ImapServer:
    await running_imap.reset()
    return running_imap


def to(server: SmtpServer, security: str = "starttls", **words: Any) -> aiosmtplib.SMTP:
    words = {"timeout": 5, "tls_context": server.authority.trusting} | words
    port = getattr(server, f"{security}_port")
    words |= {"hostname": server.host, "port": port}
    return aiosmtplib.SMTP(use_tls=security == "tls", start_tls=security == "starttls", **words)


@asynccontextmanager
async def greeted(server: SmtpServer, security: str = "starttls") -> AsyncIterator[aiosmtplib.SMTP]:
    async with to(server, security) as client:
        await client.ehlo()
        yield client


@pytest.mark.parametrize("security", ["tls", "starttls", "plain"])
async def test_smtp_takes_each_kind_of_login_and_the_mail(smtp: SmtpServer, security: str) -> None:
    for login in ("auth_plain", "auth_login", "auth_xoauth2"):
        async with greeted(smtp, security) as client:
            secret = USERS[ALICE]["token" if login == "auth_xoauth2" else "password"]
            await getattr(client, login)(ALICE, secret)
            await client.sendmail(ALICE, ["bob@gmail.test"], MAIL)
    told = await smtp.told()
    expected = [(ALICE, method, True, security) for method in ("PLAIN", "LOGIN", "XOAUTH2")]
    assert [(one["name"], one["method"], one["ok"], one["security"]) for one in told["logins"]] == expected
    assert [base64.b64decode(one["content"]) for one in told["mails"]] == [MAIL] * 3


async def test_smtp_refuses_a_token_as_gmail_does(smtp: SmtpServer) -> None:
    async with greeted(smtp) as client:
        with pytest.raises(aiosmtplib.SMTPAuthenticationError) as caught:
            await client.auth_xoauth2(ALICE, "wrong")
        assert caught.value.code == 535
    assert (await smtp.told())["logins"][0]["ended"] == "empty line"


async def test_smtp_takes_no_mail_without_a_login(smtp: SmtpServer) -> None:
    async with greeted(smtp) as client:
        with pytest.raises(aiosmtplib.SMTPResponseException) as caught:
            await client.mail(ALICE)
        assert caught.value.code == 530


async def test_smtp_users_change_while_it_runs(smtp: SmtpServer) -> None:
    await smtp.user(ALICE, token="another")
    async with greeted(smtp) as client:
        await client.auth_xoauth2(ALICE, "another")
    async with greeted(smtp) as client:
        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await client.auth_plain(ALICE, USERS[ALICE]["password"])


async def test_smtp_hides_what_it_does_not_offer(smtp: SmtpServer) -> None:
    await smtp.set(plainLogins=False, starttls=False, mechanisms=["PLAIN"])
    async with greeted(smtp, "plain") as client:
        assert not client.supports_extension("auth")
    with pytest.raises(aiosmtplib.SMTPException):
        await to(smtp, "starttls").connect()
    async with greeted(smtp, "tls") as client:
        assert client.server_auth_methods == ["plain"]


async def test_smtp_fails_as_it_is_told(smtp: SmtpServer) -> None:
    await smtp.fail("AUTH", reply="454 4.7.0 Too many login attempts")
    await smtp.fail("AUTH", dropBefore=True)
    await smtp.fail("END", dropAfter=True)
    async with greeted(smtp) as client:
        with pytest.raises(aiosmtplib.SMTPAuthenticationError) as caught:
            await client.auth_plain(ALICE, USERS[ALICE]["password"])
        assert caught.value.code == 454
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await client.auth_plain(ALICE, USERS[ALICE]["password"])
    async with greeted(smtp) as client:
        await client.auth_plain(ALICE, USERS[ALICE]["password"])
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await client.sendmail(ALICE, ["bob@gmail.test"], MAIL)
    assert len((await smtp.told())["mails"]) == 1


async def test_smtp_can_be_slow_rude_or_endless(smtp: SmtpServer) -> None:
    await smtp.fail("CONNECT", delayMs=60_000)
    with pytest.raises(aiosmtplib.SMTPTimeoutError):
        await to(smtp, timeout=0.3).connect()
    await smtp.set(banner="554 5.7.1 go away\x1b[2J")
    with pytest.raises(aiosmtplib.SMTPConnectResponseError):
        await to(smtp).connect()
    await smtp.set(banner=None)
    await smtp.fail("CONNECT", hugeBytes=1 << 30)
    with pytest.raises(aiosmtplib.SMTPException):
        await to(smtp).connect()
    async with greeted(smtp) as client:
        await client.noop()


@pytest.mark.parametrize("double", [SmtpServer, ImapServer])
async def test_tokens_can_be_those_of_the_authorization_server(double: type[MailDouble]) -> None:
    async with OAuthServer(Client("google", "secret", mode="google")) as oauth, double(oauth=oauth.issuer) as server:
        (alice,) = await oauth.seed(client="google", scope="https://mail.google.com/", logins=[ALICE])
        (other,) = await oauth.seed(client="google", scope="email", logins=[ALICE])
        for login, good in ((alice, True), (other, False)):
            assert await logs_in(server, login.access_token) is good
        await oauth.revoke(ALICE)
        assert not await logs_in(server, alice.access_token)


async def logs_in(server: MailDouble, token: str) -> bool:
    if isinstance(server, ImapServer):
        return (await asyncio.to_thread(by_imaplib, server, token)) == "OK"
    assert isinstance(server, SmtpServer)
    try:
        async with greeted(server) as client:
            await client.auth_xoauth2(ALICE, token)
    except aiosmtplib.SMTPAuthenticationError:
        return False
    return True


def by_imaplib(server: ImapServer, token: str) -> str:
    """Over STARTTLS, in two steps, and with the empty line at the end that imaplib sends for us."""
    with imaplib.IMAP4(server.host, server.starttls_port, timeout=10) as client:
        client.starttls(server.authority.trusting)
        answers = [f"user={ALICE}\x01auth=Bearer {token}\x01\x01".encode(), b""]
        try:
            return client.authenticate("XOAUTH2", lambda challenge: answers.pop(0))[0]
        except imaplib.IMAP4.error as error:
            return str(error)


async def test_imap_over_starttls_in_two_steps(imap: ImapServer) -> None:
    assert await logs_in(imap, TOKEN)
    assert not await logs_in(imap, "wrong")
    logins = (await imap.told())["logins"]
    assert [(one["ok"], one["security"], one["ended"]) for one in logins] == [
        (True, "starttls", None),
        (False, "starttls", "empty line"),
    ]


async def test_imap_by_the_official_client(imap: ImapServer) -> None:
    client = aioimaplib.IMAP4_SSL(imap.host, imap.tls_port, ssl_context=imap.authority.trusting)
    await client.wait_hello_from_server()
    assert client.has_capability("SASL-IR")
    assert (await client.xoauth2(ALICE, TOKEN)).result == "OK"
    assert (await client.select()).result == "OK"
    await client.logout()


async def test_imap_waits_for_the_empty_line_after_its_challenge(imap: ImapServer) -> None:
    """As Gmail does: aioimaplib, which never sends it, waits until its own time is over."""
    client = aioimaplib.IMAP4_SSL(imap.host, imap.tls_port, ssl_context=imap.authority.trusting, timeout=0.5)
    await client.wait_hello_from_server()
    with pytest.raises((TimeoutError, aioimaplib.CommandTimeout)):
        await client.xoauth2(ALICE, "wrong")
    await asyncio.wait_for(client.close() if client.get_state() == "SELECTED" else asyncio.sleep(0), 1)
    assert (await imap.told())["logins"] == []
    client.protocol.transport.abort()


async def test_imap_passwords_in_both_commands(imap: ImapServer) -> None:
    def login() -> None:
        with imaplib.IMAP4_SSL(imap.host, imap.tls_port, ssl_context=imap.authority.trusting, timeout=10) as client:
            assert client.login(ALICE, USERS[ALICE]["password"])[0] == "OK"
        with imaplib.IMAP4(imap.host, imap.plain_port, timeout=10) as client:
            assert "STARTTLS" not in client.capabilities
            blob = f"\0{ALICE}\0{USERS[ALICE]['password']}".encode()
            assert client.authenticate("PLAIN", lambda challenge: blob)[0] == "OK"
        client = imaplib.IMAP4(imap.host, imap.plain_port, timeout=10)
        with client, pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            client.login(ALICE, "wrong")

    await asyncio.to_thread(login)
    assert [(one["method"], one["ok"]) for one in (await imap.told())["logins"]] == [
        ("LOGIN", True),
        ("PLAIN", True),
        ("LOGIN", False),
    ]


async def test_imap_fails_as_it_is_told(imap: ImapServer) -> None:
    async def lines(*commands: bytes) -> list[bytes]:
        reader, writer = await asyncio.open_connection(imap.host, imap.plain_port, limit=1 << 20)
        try:
            writer.writelines(commands)
            writer.write_eof()
            async with asyncio.timeout(5):
                return (await reader.read()).splitlines()
        finally:
            writer.close()

    await imap.fail("LOGIN", reply="TAG NO [UNAVAILABLE] Temporary failure")
    assert (await lines(b"x LOGIN a b\r\n"))[1:] == [b"x NO [UNAVAILABLE] Temporary failure"]
    await imap.fail("CONNECT", reply="* BYE Too many simultaneous connections.")
    assert await lines() == [b"* BYE Too many simultaneous connections."]
    await imap.fail("CAPABILITY", dropAfter=True)
    assert not any(line.startswith(b"x ") for line in await lines(b"x CAPABILITY\r\n"))
    await imap.fail("CAPABILITY", hugeBytes=1 << 18)
    assert max(map(len, await lines(b"x CAPABILITY\r\n"))) > 1 << 18
    await imap.set(loginDisabled=True, saslIr=False)
    answer = b"\n".join(await lines(b"x CAPABILITY\r\n", b"y LOGIN a b\r\n"))
    assert b"LOGINDISABLED" in answer
    assert b"SASL-IR" not in answer
    assert b"y NO [PRIVACYREQUIRED]" in answer


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"names": ("mail.example",)}, "IP address mismatch"),
        ({"not_after": datetime.now(UTC) - timedelta(days=1)}, "certificate has expired"),
    ],
)
async def test_a_certificate_can_be_wrong(certificate: dict[str, Any], reason: str) -> None:
    async with SmtpServer(USERS, **certificate) as server:
        with pytest.raises(aiosmtplib.SMTPConnectError, match=reason):
            await to(server, "tls").connect()
        with pytest.raises(aiosmtplib.SMTPConnectError, match="verify failed"):
            await to(server, "tls", tls_context=ssl.create_default_context()).connect()


async def test_what_is_started_is_the_server_itself_and_ends_with_us() -> None:
    async with SmtpServer(USERS) as server:
        pid, port = server.pid, server.plain_port
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
