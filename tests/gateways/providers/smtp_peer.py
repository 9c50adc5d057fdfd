"""An SMTP server that keeps every byte it is told, and fails at exactly the step, and in the way, that a test names.

It takes for the end of a mail what RFC 5321 does and nothing else, so whatever it keeps was ended on purpose.
"""

import asyncio
import base64
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

END = b"\r\n.\r\n"
_MOST = 1 << 27


@dataclass
class Act:
    """What the server does at a step in place of going on: `takes` the mail first, then hangs up, says nothing, or says this.

    `drip`: the answer leaves byte by byte, so many seconds apart. `after`: bytes of the content that come before (CONTENT).
    """

    reply: bytes | None = None
    takes: bool = False
    drip: float = 0.0
    after: int = 0


CUT, SILENT = "cut", "silent"


@dataclass
class Taken:
    """A mail that was ended by its dot and taken: its envelope, and its content without the dots that were stuffed."""

    sender: str
    recipients: list[str]
    content: bytes


@dataclass
class SmtpPeer:
    """`acts`: for CONNECT, EHLO, AUTH, MAIL, RCPT, DATA, CONTENT and END, one for each time; None is to go on as usual."""

    token: str = "token"
    password: str = "password"
    extensions: list[str] = field(
        default_factory=lambda: ["SIZE 104857600", "8BITMIME", "SMTPUTF8", "AUTH PLAIN XOAUTH2"]
    )
    acts: dict[str, list[Act | str | None]] = field(default_factory=lambda: defaultdict(list))
    mails: list[Taken] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    content_bytes: int = 0
    raw: bytes = b""

    async def __aenter__(self) -> Self:
        self._over = asyncio.Event()
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0, limit=_MOST)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        self._over.set()
        self._server.close()
        await self._server.wait_closed()

    def forget(self) -> None:
        fresh = SmtpPeer()
        self.acts, self.mails, self.commands, self.content_bytes, self.raw = fresh.acts, [], [], 0, b""
        self.extensions = fresh.extensions

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(_Wire(self, reader, writer))
        writer.close()

    async def _talk(self, wire: "_Wire") -> None:
        if not await wire.answer("CONNECT", b"220 peer ESMTP"):
            return
        sender, recipients = "", list[str]()
        while line := await wire.reader.readline():
            told = line.decode("utf-8", "replace").rstrip("\r\n")
            self.commands.append(told)
            match told.partition(" ")[0].upper():
                case "EHLO":
                    lines = ["peer", *self.extensions]
                    going = await wire.answer("EHLO", b"\r\n".join(_multiline(250, lines)))
                case "AUTH":
                    going = await self._auth(wire, told)
                case "MAIL":
                    sender, recipients = told.partition("<")[2].partition(">")[0], []
                    going = await wire.answer("MAIL", b"250 2.1.0 OK")
                case "RCPT":
                    recipient = told.partition("<")[2].partition(">")[0]
                    going = await wire.answer("RCPT", b"250 2.1.5 OK")
                    if wire.accepted:
                        recipients.append(recipient)
                case "DATA":
                    going = await wire.answer("DATA", b"354 go on")
                    if going and wire.accepted:
                        going = await self._data(wire, Taken(sender, recipients, b""))
                case "QUIT":
                    wire.writer.write(b"221 bye\r\n")
                    return
                case _:
                    wire.writer.write(b"500 what\r\n")
                    going = True
            if not going:
                return

    async def _auth(self, wire: "_Wire", told: str) -> bool:
        _, method, proof = told.split(" ")
        given = base64.b64decode(proof).decode()
        if (method == "XOAUTH2" and f"auth=Bearer {self.token}\x01" in given) or given.endswith(f"\0{self.password}"):
            return await wire.answer("AUTH", b"235 2.7.0 Accepted")
        if method == "XOAUTH2":
            wire.writer.write(b"334 eyJzdGF0dXMiOiI0MDAifQ==\r\n")
            await wire.reader.readline()
        return await wire.answer("AUTH", b"535 5.7.8 Username and Password not accepted")

    async def _data(self, wire: "_Wire", mail: Taken) -> bool:
        act = self.acts["CONTENT"].pop(0) if self.acts["CONTENT"] else None
        if act is not None:
            if isinstance(act, Act):
                self.content_bytes = len(await wire.reader.readexactly(act.after))
            elif act == SILENT:
                wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a transport for both ways
            return await wire.do(act)
        content = await wire.reader.readuntil(END)
        self.raw, self.content_bytes = content, len(content)
        mail.content = content[: -len(END) + 2].replace(b"\r\n..", b"\r\n.")
        act = self.acts["END"].pop(0) if self.acts["END"] else None
        if act is None or (isinstance(act, Act) and act.takes):
            self.mails.append(mail)
        return await wire.do(Act(b"250 2.0.0 OK") if act is None else act)


class _Wire:
    def __init__(self, peer: SmtpPeer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self.reader, self.writer = peer, reader, writer
        self.accepted = False

    async def answer(self, step: str, usual: bytes) -> bool:
        """Whether the session goes on; `accepted` tells whether the usual answer was given."""
        acts = self.peer.acts[step]
        act = acts.pop(0) if acts else None
        self.accepted = act is None or (isinstance(act, Act) and act.takes)
        return await self.do(Act(usual) if act is None else act)

    async def do(self, act: Act | str) -> bool:
        if act == SILENT:
            await self.peer._over.wait()
            return False
        if isinstance(act, Act) and act.reply is not None:
            for piece in [act.reply + b"\r\n"] if not act.drip else [bytes([byte]) for byte in act.reply + b"\r\n"]:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(act.drip)
            return True
        self.writer.transport.abort()
        return False


def _multiline(code: int, lines: list[str]) -> list[bytes]:
    last = len(lines) - 1
    return [f"{code}{' ' if number == last else '-'}{line}".encode() for number, line in enumerate(lines)]
