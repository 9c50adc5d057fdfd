"""The SMTP double's own process: `python -m tests.support.mail_servers.smtp_child`."""

import asyncio
import base64
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, auth_mechanism

from tests.support.mail_servers.state import CHALLENGE, State, bearer, serve

REFUSED = "535 5.7.8 Username and Password not accepted. For more information, go to https://support.google.com/mail/"


class Handler:
    """What aiosmtpd asks."""

    def __init__(self, state: State, security: str) -> None:
        self.state, self.security = state, security

    @auth_mechanism("XOAUTH2")
    async def auth_xoauth2(self, server: "Server", args: list[str]) -> AuthResult:
        blob = await server.challenge_auth("") if len(args) == 1 else _decoded(args[1])
        if not isinstance(blob, bytes):
            return AuthResult(success=False, handled=blob is MISSING)
        given = bearer(blob)
        if given and await self.state.knows(*given, "token"):
            self.state.seen(given[0], "XOAUTH2", ok=True, security=server.security)
            return AuthResult(success=True, auth_data=given[0], message="235 2.7.0 Accepted")
        answer = await server.challenge_auth(CHALLENGE)
        ended = "empty line" if answer == b"" else f"{answer!r}"
        self.state.seen(given[0] if given else "", "XOAUTH2", ok=False, security=server.security, ended=ended)
        return AuthResult(success=False, handled=answer is MISSING, message=REFUSED)

    @auth_mechanism("PLAIN")
    async def auth_plain(self, server: "Server", args: list[str]) -> AuthResult:
        blob = await server.challenge_auth("") if len(args) == 1 else _decoded(args[1])
        parts = blob.split(b"\0") if isinstance(blob, bytes) else []
        name, password = parts[1:] if len(parts) == 3 else (b"", b"")
        return await self._by_password(server, name, password, "PLAIN")

    @auth_mechanism("LOGIN")
    async def auth_login(self, server: "Server", args: list[str]) -> AuthResult:
        name = await server.challenge_auth("Username:") if len(args) == 1 else _decoded(args[1])
        password = await server.challenge_auth("Password:")
        if not isinstance(name, bytes) or not isinstance(password, bytes):
            return AuthResult(success=False, handled=True)
        return await self._by_password(server, name, password, "LOGIN")

    async def _by_password(self, server: "Server", name: bytes, password: bytes, method: str) -> AuthResult:
        who = name.decode(errors="replace")
        ok = await self.state.knows(who, password.decode(errors="replace"), "password")
        self.state.seen(who, method, ok=ok, security=server.security)
        return AuthResult(success=ok, handled=False, auth_data=who, message="235 2.7.0 Accepted" if ok else REFUSED)

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: "Server", session: Any, envelope: Any, host: str, lines: list[str]
    ) -> list[str]:
        session.host_name = host
        kept = []
        for line in lines:
            if line.startswith(("250-AUTH", "250 AUTH")):
                if server.secret or self.state.settings["plainLogins"]:
                    kept.append(f"{line[:4]}AUTH {' '.join(self.state.settings['mechanisms'])}")
            elif "STARTTLS" not in line or self.state.settings["starttls"]:
                kept.append(line)
        return kept

    async def handle_DATA(self, server: "Server", session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        failure = self.state.due("END")
        if failure and await server.instead(failure):
            return "451 4.3.0 never said"
        text = base64.b64encode(envelope.original_content or b"").decode()
        mail = {"sender": envelope.mail_from, "recipients": envelope.rcpt_tos, "content": text}
        self.state.mails.append(mail | {"login": session.auth_data})
        server.after(failure)
        return "250 2.0.0 OK"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(b"" if text == "=" else text, validate=True)
    except ValueError:
        return b""


def failing(name: str) -> Callable[[Any, str], Awaitable[None]]:
    """A command of SMTP that first asks whether it is to fail."""
    original = getattr(SMTP, name)

    @functools.wraps(original)
    async def command(self: "Server", arg: str) -> None:
        failure = self.state.due(name.removeprefix("smtp_"))
        await asyncio.sleep(self.state.settings["slowMs"] / 1000)
        if failure and await self.instead(failure):
            return
        self.after(failure)
        if name == "smtp_MAIL" and self.state.settings["authRequired"] and not self.session.authenticated:
            await self.push("530 5.7.0 Authentication Required.")
        elif name == "smtp_STARTTLS" and not self.state.settings["starttls"]:
            await self.push("502 5.5.1 Unrecognized command.")
        elif name == "smtp_AUTH" and (arg or "").upper().split()[:1] not in [[m] for m in self._mechanisms()]:
            await self.push("504 5.7.4 Unrecognized Authentication Type.")
        else:
            await original(self, arg)

    return command


class Server(SMTP):
    """aiosmtpd's server, which can answer nothing, too late, or too much."""

    line_length_limit = 16 * 1024  # a token of Microsoft's is longer than a line of SMTP

    smtp_EHLO = failing("smtp_EHLO")  # noqa: N815 - aiosmtpd's names
    smtp_HELO = failing("smtp_HELO")  # noqa: N815 - aiosmtpd's names
    smtp_STARTTLS = failing("smtp_STARTTLS")  # noqa: N815 - aiosmtpd's names
    smtp_AUTH = failing("smtp_AUTH")  # noqa: N815 - aiosmtpd's names
    smtp_MAIL = failing("smtp_MAIL")  # noqa: N815 - aiosmtpd's names
    smtp_RCPT = failing("smtp_RCPT")  # noqa: N815 - aiosmtpd's names
    smtp_DATA = failing("smtp_DATA")  # noqa: N815 - aiosmtpd's names

    def __init__(self, state: State, security: str) -> None:
        self.state, self.port_security = state, security
        tls = state.tls if security == "starttls" else None
        super().__init__(
            Handler(state, security),
            hostname="smtp.double",
            ident="ESMTP double",
            tls_context=tls,
            auth_require_tls=False,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
        )
        self.command_size_limits["AUTH"] = 12 * 1024
        self._cut, self._held = False, 0.0

    @property
    def secret(self) -> bool:
        return self.port_security == "tls" or self._tls_protocol is not None

    @property
    def security(self) -> str:
        return self.port_security if self.secret else "plain"

    def _mechanisms(self) -> list[str]:
        return self.state.settings["mechanisms"] if self.secret or self.state.settings["plainLogins"] else []

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._tls_protocol is None:
            self.state.connections += 1
            self.state.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.state.open -= 1

    async def _handle_client(self) -> None:
        if self._tls_protocol is None:
            failure = self.state.due("CONNECT")
            await asyncio.sleep(self.state.settings["slowMs"] / 1000)
            if failure and await self.instead(failure):
                self.transport.close()
                return
        await super()._handle_client()

    async def instead(self, failure: dict[str, Any]) -> bool:
        """Whether the failure has answered (or hung up) in place of the command."""
        await asyncio.sleep(failure.get("delayMs", 0) / 1000)
        if failure.get("dropBefore"):
            self.transport.abort()
            return True
        if "hugeBytes" in failure:
            self._writer.write(b"220 ")
            for _ in range(failure["hugeBytes"] >> 16):
                self._writer.write(b"a" * (1 << 16))
                await self._writer.drain()
            self._writer.write(b"\r\n")
            return True
        if "reply" in failure:
            await super().push(failure["reply"])
            return True
        return False

    def after(self, failure: dict[str, Any]) -> None:
        """The next answer that ends a command is late, or lost with the connection."""
        self._cut, self._held = failure.get("dropAfter", False), failure.get("delayAfterMs", 0) / 1000

    async def push(self, status: Any) -> None:
        line = status if isinstance(status, bytes) else status.encode()
        if line.startswith(b"220 smtp.double") and self.state.settings["banner"] is not None:
            status = self.state.settings["banner"]
        if not line.startswith((b"334", b"354")):
            await asyncio.sleep(self._held)
            if self._cut:
                self.transport.abort()
                raise ConnectionResetError
            self._held = 0.0
        await super().push(status)


async def listen(state: State, security: str) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(
        lambda: Server(state, security), "127.0.0.1", 0, ssl=state.tls if security == "tls" else None
    )


if __name__ == "__main__":
    asyncio.run(serve(listen))
