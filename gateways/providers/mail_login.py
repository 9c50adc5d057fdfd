"""Real logins to both mail servers of a user, within one span of time."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from domain.tokens import MailServer, OwnServers
from gateways.providers import imap_login, smtp_login
from gateways.providers.connector import ConnectFailed
from gateways.providers.egress import Egress
from gateways.providers.hosts import HostNotAllowed, plain_host
from gateways.providers.mail_failures import UNREACHABLE, MailFailure
from gateways.providers.measures import ProviderMeasures

SMTP: Final = "The outgoing server (SMTP)"
IMAP: Final = "The incoming server (IMAP)"
TOO_SLOW: Final = "took too long to answer"
UNWRITABLE: Final = "can't be told a user name or password with control characters in it"


class MailLogins:
    """Logs in to servers that users name. `tls` says whose certificates are trusted."""

    def __init__(self, egress: Egress, measures: ProviderMeasures, tls: ssl.SSLContext, seconds: float) -> None:
        self._egress = egress
        self._measures = measures
        self._tls = tls
        self._seconds = seconds

    async def log_in(self, servers: OwnServers, access_token: str | None) -> None:
        """To both servers, by the token or, without one, by their passwords. Raises ConnectFailed."""
        ends_at = asyncio.get_running_loop().time() + self._seconds
        await self._bounded(SMTP, "smtp_login", ends_at, lambda: self._smtp(servers.smtp, access_token))
        await self._bounded(IMAP, "imap_login", ends_at, lambda: self._imap(servers.imap, access_token))

    async def _bounded(self, server: str, operation: str, ends_at: float, login: Callable[[], Awaitable[None]]) -> None:
        with self._measures.call("smtp", operation) as outcome:
            try:
                async with asyncio.timeout_at(ends_at):
                    await login()
            except MailFailure as failure:
                outcome.is_("refused" if failure.code == "login_failed" else "unreachable")
                raise ConnectFailed(failure.code, f"{server} {failure.what}.") from None
            except HostNotAllowed as failure:
                outcome.is_("not_allowed")
                raise ConnectFailed("host_not_allowed", f"{server}: {failure.sentence}") from None
            except TimeoutError:
                outcome.is_("timed_out")
                raise ConnectFailed("provider_unavailable", f"{server} {TOO_SLOW}.") from None
            outcome.is_("ok")

    async def _smtp(self, server: MailServer, access_token: str | None) -> None:
        connection, host = await self._connected(server)
        await smtp_login.log_in(connection, server, host, access_token, tls=self._tls, seconds=self._seconds)

    async def _imap(self, server: MailServer, access_token: str | None) -> None:
        connection, host = await self._connected(server)
        await imap_login.log_in(connection, server, host, access_token, tls=self._tls)

    async def _connected(self, server: MailServer) -> tuple[socket.socket, str]:
        host = plain_host(server.host)
        self._egress.check_mail_server(host, server.port, encrypted=server.security != "none")
        if not (server.username + (server.password or "")).isprintable():
            raise MailFailure("login_failed", UNWRITABLE)
        try:
            return await self._egress.connect(host, server.port), host
        except OSError:
            raise MailFailure("provider_unavailable", UNREACHABLE) from None
