"""GreenMail, judged by aiosmtplib and aioimaplib."""

from collections.abc import AsyncIterator

import aiosmtplib
import pytest
from aioimaplib import aioimaplib

from tests.support.mail_servers.greenmail import GreenMail

ALICE = "alice@gmail.test"
MAIL = b"From: alice@gmail.test\r\nTo: alice@gmail.test\r\nSubject: hello\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
async def greenmail() -> AsyncIterator[GreenMail]:
    async with GreenMail({ALICE: "token-1"}) as server:
        yield server


async def imap(server: GreenMail) -> aioimaplib.IMAP4_SSL:
    client = aioimaplib.IMAP4_SSL(server.host, server.ports["imaps"], ssl_context=server.authority.trusting)
    await client.wait_hello_from_server()
    return client


async def test_a_mail_that_was_sent_is_read(greenmail: GreenMail) -> None:
    trusting = greenmail.authority.trusting
    port = greenmail.ports["smtps"]
    async with aiosmtplib.SMTP(hostname=greenmail.host, port=port, use_tls=True, tls_context=trusting) as smtp:
        await smtp.auth_xoauth2(ALICE, "token-1")
        await smtp.sendmail(ALICE, [ALICE], MAIL)
    client = await imap(greenmail)
    assert (await client.xoauth2(ALICE, "token-1")).result == "OK"
    assert (await client.select()).result == "OK"
    fetched = await client.fetch("1", "(RFC822)")
    assert b"Subject: hello" in b"".join(fetched.lines)
    await client.logout()
    assert [one["subject"] for one in await greenmail.mails(ALICE)] == ["hello"]
    await greenmail.purge()
    assert await greenmail.mails(ALICE) == []


async def test_a_token_changes_while_it_runs(greenmail: GreenMail) -> None:
    await greenmail.user(ALICE, "token-2")
    client = await imap(greenmail)
    assert (await client.xoauth2(ALICE, "token-1")).result == "NO"
    await client.logout()
    client = await imap(greenmail)
    assert (await client.xoauth2(ALICE, "token-2")).result == "OK"
    await client.logout()
