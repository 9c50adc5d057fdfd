"""What the two mail doubles have in common: a child with three ports, users, failures to come, and a memory."""

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.support.mail_servers.authority import Authority
from tests.support.own_child import OwnChild

_ROOT = Path(__file__).parents[3]


class MailDouble:
    """One server on three ports of `host`: `tls_port` from the first byte, `starttls_port`, and `plain_port`.

    `users` maps a name to what opens its mailbox: {"password": …, "token": …}, either may be missing. With `oauth`, the
    issuer of an OAuthServer, a token is good when it is alive there, belongs to the user and has a scope for mail.
    Settings are those at the top of state.py; failures are ordered by `fail`.
    """

    MODULE: ClassVar[str]
    host = "127.0.0.1"

    def __init__(
        self,
        users: Mapping[str, Mapping[str, str]] | None = None,
        *,
        authority: Authority | None = None,
        names: tuple[str, ...] = (),
        not_after: datetime | None = None,
        **settings: Any,
    ) -> None:
        self.authority = authority or Authority()
        self._told = {"certificate": self.authority.issue(*names, not_after=not_after), "settings": settings}
        self._users = {name: dict(one) for name, one in (users or {}).items()}
        self._child: OwnChild | None = None

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", self.MODULE]
        environment = {"PYTHONPATH": str(_ROOT)}
        told = self._told | {"users": self._users}
        self._child = await OwnChild.start(self.MODULE.rpartition(".")[2], command, environment=environment, told=told)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        assert self._child is not None
        await self._child.stop()

    @property
    def tls_port(self) -> int:
        return self._port("tls")

    @property
    def starttls_port(self) -> int:
        return self._port("starttls")

    @property
    def plain_port(self) -> int:
        return self._port("plain")

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    async def user(self, name: str, **secrets: str) -> None:
        """From now on this user has this `password` and this `token`, or neither."""
        await self._ask("user", name=name, secrets=secrets)

    async def set(self, **settings: Any) -> None:
        """Change settings while it runs."""
        await self._ask("set", **settings)

    async def fail(self, command: str, **failure: Any) -> None:
        """The next `times` (one) of a command fail; CONNECT is the greeting, END the end of the mail.

        `reply` (a line, instead of the work), `delayMs`, `delayAfterMs`, `dropBefore`, `dropAfter` (done, but nobody
        hears of it), `hugeBytes` (a line that long).
        """
        await self._ask("fail", command=command, **failure)

    async def told(self) -> dict[str, Any]:
        """What it saw: `connections`, `logins` (name, method, ok, security, ended), `commands`, `mails`, `open`."""
        return await self._ask("tell")

    async def reset(self) -> None:
        """Users, settings and memory as at the start."""
        await self._ask("reset")

    def _port(self, security: str) -> int:
        assert self._child is not None
        return self._child.word[security]

    async def _ask(self, order: str, **words: Any) -> Any:
        assert self._child is not None
        answer = await self._child.ask({"order": order, "words": words})
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["told"]


class SmtpServer(MailDouble):
    """SMTP by aiosmtpd: PLAIN, LOGIN and XOAUTH2, with Gmail's refusals."""

    MODULE = "tests.support.mail_servers.smtp_child"


class ImapServer(MailDouble):
    """As much of IMAP as a login needs, with Gmail's refusals."""

    MODULE = "tests.support.mail_servers.imap_child"
