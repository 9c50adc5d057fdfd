"""Two mail servers as a user would name them, and logins to them whose words are kept."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry

from domain.tokens import MailServer, OwnServers
from gateways.providers.connector import ConnectFailed
from gateways.providers.egress import Egress
from gateways.providers.mail_login import MailLogins
from gateways.providers.measures import ProviderMeasures
from tests.gateways.providers.house import logged, told_of
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import MailDouble

PASSWORD = 'canary-password-7d2c é"\\'
TOKEN = "canary-token-91ab"
ALICE = "alice@gmail.test"
SECONDS = 5.0
Protocol = Literal["smtp", "imap"]
BOTH: list[Protocol] = ["smtp", "imap"]


class Logins:
    """The two servers as a user would name them, and a way to log in to them that keeps what was said."""

    def __init__(self, authority: Authority, smtp: MailServer, imap: MailServer) -> None:
        self.registry = CollectorRegistry()
        self.measures = ProviderMeasures(self.registry)
        self.authority = authority
        self.servers = OwnServers(smtp, imap)
        self.said: list[str] = []

    def change(self, protocol: Protocol, **changes: Any) -> None:
        changed = replace(getattr(self.servers, protocol), **changes)
        self.servers = replace(self.servers, **{protocol: changed})

    async def log_in(self, token: str | None = None, *, seconds: float = SECONDS, private: bool = True) -> None:
        logins = MailLogins(Egress(private), self.measures, self.authority.trusting, seconds)
        await logins.log_in(self.servers, token)

    async def fails(self, token: str | None = None, *, seconds: float = SECONDS, private: bool = True) -> ConnectFailed:
        with pytest.raises(ConnectFailed) as caught:
            await self.log_in(token, seconds=seconds, private=private)
        self.said += [repr(caught.value), *traceback.format_exception(caught.value)]
        return caught.value


def named(server: MailDouble, security: Literal["tls", "starttls", "none"]) -> MailServer:
    ports = {"tls": server.tls_port, "starttls": server.starttls_port, "none": server.plain_port}
    return MailServer("localhost", ports[security], security, ALICE, PASSWORD)


@contextmanager
def no_secret_told(logins: Logins, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Every secret of these tests has `canary` in it, and so has everything that servers say."""
    with caplog.at_level(logging.DEBUG):
        yield
    assert told_of(["canary"], "\n".join([logged(caplog), *logins.said])) == []
