"""Logins to GreenMail, which is a mail server and none of ours."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from domain.tokens import MailServer, OwnServers
from tests.gateways.providers.mail_logins import ALICE, Logins, no_secret_told
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.greenmail import GreenMail


@pytest.fixture(autouse=True)
def no_secret_is_told(logins: Logins, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with no_secret_told(logins, caplog):
        yield


@pytest.fixture(scope="module")
async def greenmail(authority: Authority) -> AsyncIterator[GreenMail]:
    async with GreenMail({ALICE: "canary-greenmail"}, authority=authority) as server:
        yield server


@pytest.mark.parametrize("secret", ["password", "token"])
@pytest.mark.parametrize("security", ["tls", "none"])
async def test_greenmail_is_logged_in_to(logins: Logins, greenmail: GreenMail, secret: str, security: Any) -> None:
    suffix = "s" if security == "tls" else ""
    password = "canary-greenmail" if secret == "password" else None
    logins.servers = OwnServers(
        MailServer("127.0.0.1", greenmail.ports[f"smtp{suffix}"], security, ALICE, password),
        MailServer("127.0.0.1", greenmail.ports[f"imap{suffix}"], security, ALICE, password),
    )
    await logins.log_in(None if password else "canary-greenmail")
    wrong = None if password else "canary-wrong"
    logins.servers = OwnServers(
        *(
            replace(each, password="canary-wrong" if password else None)
            for each in (logins.servers.smtp, logins.servers.imap)
        )
    )
    began = time.perf_counter()
    assert (await logins.fails(wrong)).code == "login_failed"
    assert time.perf_counter() - began < 2
