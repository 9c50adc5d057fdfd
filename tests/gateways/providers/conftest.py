"""The servers that providers are tried against: one of each for a module, put back as it was before each test."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.gateways.providers.house import CALLBACK, CLIENT_ID, CLIENT_SECRET
from tests.gateways.providers.mail_logins import ALICE, PASSWORD, TOKEN, Logins, Protocol, named
from tests.gateways.providers.smtp_peer import SmtpPeer
from tests.gateways.providers.smtp_sends import PASSWORD as SMTP_PASSWORD
from tests.gateways.providers.smtp_sends import TOKEN as SMTP_TOKEN
from tests.gateways.providers.smtp_sends import SmtpSends, smtp_sends_to
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import ImapServer, MailDouble, SmtpServer
from tests.support.oauth_server.server import Client, OAuthServer


@pytest.fixture(scope="module")
async def oauth_server() -> AsyncIterator[OAuthServer]:
    async with OAuthServer(Client(CLIENT_ID, CLIENT_SECRET, (CALLBACK,))) as server:
        yield server


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
async def smtp_server(authority: Authority) -> AsyncIterator[SmtpServer]:
    async with SmtpServer({ALICE: {"password": PASSWORD, "token": TOKEN}}, authority=authority) as server:
        yield server


@pytest.fixture(scope="module")
async def imap_server(authority: Authority) -> AsyncIterator[ImapServer]:
    async with ImapServer({ALICE: {"password": PASSWORD, "token": TOKEN}}, authority=authority) as server:
        yield server


@pytest.fixture
async def logins(authority: Authority, smtp_server: SmtpServer, imap_server: ImapServer) -> Logins:
    await smtp_server.reset()
    await imap_server.reset()
    return Logins(authority, named(smtp_server, "tls"), named(imap_server, "tls"))


@pytest.fixture
def double(smtp_server: SmtpServer, imap_server: ImapServer) -> Callable[[Protocol], MailDouble]:
    return lambda protocol: smtp_server if protocol == "smtp" else imap_server


@pytest.fixture(scope="module")
async def smtp_peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer(SMTP_TOKEN, SMTP_PASSWORD) as peer:
        yield peer


@pytest.fixture
def smtp_sends(smtp_peer: SmtpPeer, authority: Authority) -> SmtpSends:
    smtp_peer.forget()
    return smtp_sends_to(smtp_peer, authority)
