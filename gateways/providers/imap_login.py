"""A login to an IMAP server (RFC 3501), over a socket that was checked before.

Our own, because it is all we need of IMAP so far, and the libraries fall short of it: aioimaplib is under the GPL, has no
STARTTLS, logs passwords, reads lines without end, and waits ten seconds for the end of a refused XOAUTH2.
"""

import asyncio
import base64
import re
import socket
import ssl
from typing import Final

from domain.tokens import MailServer
from gateways.providers.mail_failures import (
    BUSY,
    HUNG_UP,
    NO_PASSWORDS,
    NO_STARTTLS,
    NO_XOAUTH2,
    NOT_UNDERSTOOD,
    MailFailure,
    of_network,
    refused,
    unavailable,
)

#: Bytes of a line, and lines in one answer: a list of capabilities is one line of a few hundred.
LONGEST_LINE: Final = 16 * 1024
MOST_LINES: Final = 100
#: RFC 5530: refused for reasons of the server's own, or of the hour's.
FOR_NOW: Final = re.compile(rb"\[(UNAVAILABLE|SERVERBUG|INUSE|LIMIT)\b", re.IGNORECASE)
PLAIN_TEXT: Final = re.compile(r"[\x20-\x7e]*")


async def log_in(
    connection: socket.socket, server: MailServer, host: str, access_token: str | None, *, tls: ssl.SSLContext
) -> None:
    """Logs in by XOAUTH2 where there is a token, by the password otherwise. Raises MailFailure; ends the connection."""
    wire = _Wire(connection, host, tls)
    try:
        await wire.open(encrypted=server.security == "tls")
        offered = await _greeted(wire, server)
        await _authenticate(wire, server, offered, access_token)
    except asyncio.IncompleteReadError:
        raise unavailable(HUNG_UP) from None
    except asyncio.LimitOverrunError:
        raise unavailable(NOT_UNDERSTOOD) from None
    except OSError as error:
        raise of_network(error) from None
    finally:
        wire.hang_up()


async def _greeted(wire: "_Wire", server: MailServer) -> frozenset[str]:
    """What the server offers, asked again once nobody can listen in. A server that knows us already proves nothing."""
    greeting = await wire.line()
    if greeting.upper().startswith(b"* BYE"):
        raise unavailable(BUSY)
    if not greeting.upper().startswith(b"* OK"):
        raise unavailable(NOT_UNDERSTOOD)
    offered = await wire.capabilities()
    if server.security != "starttls":
        return offered
    if "STARTTLS" not in offered or not (await wire.ask(b"STARTTLS")).ok:
        raise unavailable(NO_STARTTLS)
    await wire.encrypt()
    return await wire.capabilities()


async def _authenticate(wire: "_Wire", server: MailServer, offered: frozenset[str], access_token: str | None) -> None:
    answer = await (
        _by_password(wire, server, offered) if access_token is None else _by_token(wire, server, offered, access_token)
    )
    if not answer.ok:
        raise unavailable(BUSY) if FOR_NOW.search(answer.text) else refused(access_token)


async def _by_token(wire: "_Wire", server: MailServer, offered: frozenset[str], access_token: str) -> "_Result":
    if "AUTH=XOAUTH2" not in offered:
        raise MailFailure("login_failed", NO_XOAUTH2)
    proof = f"user={server.username}\x01auth=Bearer {access_token}\x01\x01"
    return await wire.authenticate(b"XOAUTH2", proof.encode(), at_once="SASL-IR" in offered)


async def _by_password(wire: "_Wire", server: MailServer, offered: frozenset[str]) -> "_Result":
    password = server.password or ""
    if "AUTH=PLAIN" in offered:
        proof = f"\0{server.username}\0{password}"
        return await wire.authenticate(b"PLAIN", proof.encode(), at_once="SASL-IR" in offered)
    if "LOGINDISABLED" in offered or not PLAIN_TEXT.fullmatch(server.username + password):
        raise MailFailure("login_failed", NO_PASSWORDS)
    return await wire.ask(b"LOGIN %s %s" % (_quoted(server.username), _quoted(password)))


def _quoted(text: str) -> bytes:
    return b'"' + re.sub(r'(["\\])', r"\\\1", text).encode("ascii") + b'"'


class _Result:
    """The line that ends an answer, and the untagged ones before it."""

    def __init__(self, word: bytes, text: bytes, before: list[bytes]) -> None:
        self.ok = word.upper() == b"OK"
        self.text = text
        self.before = before


class _Wire:
    """Commands and answers, one at a time, never more than a line in memory beside those of one answer."""

    def __init__(self, connection: socket.socket, host: str, tls: ssl.SSLContext) -> None:
        self._connection = connection
        self._host = host
        self._tls = tls
        self._number = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, *, encrypted: bool) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._connection,
            limit=LONGEST_LINE,
            ssl=self._tls if encrypted else None,
            server_hostname=self._host if encrypted else None,
        )

    async def encrypt(self) -> None:
        """With a reader of its own: what somebody put on the wire before TLS is never read as if it came by TLS."""
        loop, plain = asyncio.get_running_loop(), self._open_writer()
        self._reader = asyncio.StreamReader(limit=LONGEST_LINE)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        transport = await loop.start_tls(plain.transport, protocol, self._tls, server_hostname=self._host)
        if transport is None:
            raise unavailable(HUNG_UP)
        protocol.connection_made(transport)
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        self._plain = plain  # asyncio closes the connection of a writer that nobody holds any more

    def hang_up(self) -> None:
        """At once: whoever is slow to say goodbye, in IMAP or in TLS, keeps nobody waiting."""
        if self._writer is not None:
            self._writer.write(b"z LOGOUT\r\n")
            self._writer.transport.abort()

    def send(self, line: bytes) -> None:
        self._open_writer().write(line + b"\r\n")

    async def line(self) -> bytes:
        return (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")

    async def capabilities(self) -> frozenset[str]:
        answer = await self.ask(b"CAPABILITY")
        words = [line.upper().split()[2:] for line in answer.before if line.upper().startswith(b"* CAPABILITY ")]
        if not answer.ok or not words:
            raise unavailable(NOT_UNDERSTOOD)
        return frozenset(word.decode("ascii", "replace") for line in words for word in line)

    async def ask(self, command: bytes, *answers: bytes) -> _Result:
        """Sends a command, and one of the answers for each time the server asks to go on; then empty lines."""
        self._number += 1
        tag = b"a%d" % self._number
        self.send(tag + b" " + command)
        waiting, before = list(answers), list[bytes]()
        for _ in range(MOST_LINES):
            line = await self.line()
            if line.startswith(b"+"):
                # After the last answer it is the reason of a refusal, which an empty line ends (XOAUTH2).
                self.send(waiting.pop(0) if waiting else b"")
            elif line.upper().startswith(b"* BYE"):
                raise unavailable(HUNG_UP)
            elif line.startswith(b"* "):
                before.append(line)
            elif line.startswith(tag + b" "):
                word, _, text = line.removeprefix(tag + b" ").partition(b" ")
                return _Result(word, text, before)
            else:
                break
        raise unavailable(NOT_UNDERSTOOD)

    async def authenticate(self, mechanism: bytes, proof: bytes, *, at_once: bool) -> _Result:
        """SASL: with the command where the server allows that (RFC 4959), else when it asks."""
        encoded = base64.b64encode(proof)
        if at_once:
            return await self.ask(b"AUTHENTICATE " + mechanism + b" " + encoded)
        return await self.ask(b"AUTHENTICATE " + mechanism, encoded)

    def _open_writer(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise ConnectionError
        return self._writer
