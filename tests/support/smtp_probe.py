"""An SMTP client that says exactly what it is told, and a door that keeps what it is given."""

import asyncio
import contextlib
import hashlib
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

from gateways.mail_in.door import Envelope, Inbox, Spooled, Unavailable

_KEPT_WHOLE = 1 << 20
_BLOCK = 1 << 16
_PATIENCE = 20.0

# What other servers have taken for an end of data; none of them is one.
NOT_ENDS = [
    b"\n.\n", b"\n.\r", b"\n.\r\n", b"\r.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n",
    b"\r\n.\r", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n.\r\r\n",
]  # fmt: skip
SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<known@in.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nboo"


def as_kept(wire: bytes) -> tuple[bytes | None, bytes]:
    """A mail as it must be kept, and what comes after it.

    Said slowly: the first CRLF . CRLF ends it; every line end becomes CRLF; a line's first dot is taken away.
    """
    text, end, rest = (b"\r\n" + wire).partition(b"\r\n.\r\n")
    if not end:
        return None, b""
    lines = re.split(rb"\r\n|\r|\n", text)[1:]
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines), rest


@dataclass(frozen=True)
class KeptMail:
    """A mail as it was given: its bytes up to 1 MiB, and always what they hash to when read here."""

    size: int
    sha256: str
    text: bytes
    envelopes: list[Envelope]
    mailboxes: list[str]


@dataclass
class RecordingDoor:
    """Every address that begins with `known` is an open mailbox of its own; others are nobody's."""

    kept: list[KeptMail] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    find_fails: Exception | None = None
    deliver_fails: Exception | None = None
    delivering: asyncio.Event = field(default_factory=asyncio.Event)
    may_deliver: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_deliver.set()

    def unavailable(self, sentence: str) -> None:
        """From now on nothing can be looked up or kept."""
        self.find_fails = self.deliver_fails = Unavailable(sentence)

    async def find(self, address: str) -> Inbox | None:
        self.found.append(address)
        if self.find_fails is not None:
            raise self.find_fails
        name = address.strip().lower()
        return Inbox(mailbox=f"mbx_{name}", owner="own_1", data_key=b"k" * 32) if name.startswith("known") else None

    async def deliver(self, mail: Spooled, to: list[tuple[Inbox, Envelope]]) -> None:
        self.delivering.set()
        await self.may_deliver.wait()
        if self.deliver_fails is not None:
            raise self.deliver_fails
        read, size, text = hashlib.sha256(), 0, b""
        while block := mail.file.read(_BLOCK):
            read.update(block)
            size += len(block)
            if size <= _KEPT_WHOLE:
                text += block
            await asyncio.sleep(0)
        assert (size, read.hexdigest()) == (mail.size, mail.sha256), "the mail is not what it was said to be"
        self.kept.append(KeptMail(size, mail.sha256, text, [said for _, said in to], [box.mailbox for box, _ in to]))


class Probe:
    """One raw connection. Replies come back whole, without their last line end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *, talk: bytes = b"") -> Self:
        """Connects and, before anything is heard, sends `talk`."""
        raw = socket.socket()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        if talk:
            raw.send(talk)
        reader, writer = await asyncio.open_connection(sock=raw)
        return cls(reader, writer)

    @classmethod
    async def greeted(cls, port: int) -> Self:
        """Connects and says EHLO."""
        probe = await cls.connect(port)
        assert (await probe.reply()).startswith("220 ")
        assert (await probe.ask("EHLO probe.example")).startswith("250-")
        return probe

    async def reply(self) -> str:
        """The next reply, all its lines; empty where the server has closed."""
        lines: list[str] = []
        async with asyncio.timeout(_PATIENCE):
            while True:
                line = (await self.reader.readline()).decode()
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    return "\n".join(lines)

    async def ask(self, command: str) -> str:
        """Sends one command and returns its reply."""
        await self.send(command.encode() + b"\r\n")
        return await self.reply()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def envelope(self, *recipients: str, sender: str = "ada@example.org") -> None:
        """MAIL, RCPT and DATA, up to and including 354."""
        assert (await self.ask(f"MAIL FROM:<{sender}>")).startswith("250")
        for recipient in recipients or ("known@in.example",):
            assert (await self.ask(f"RCPT TO:<{recipient}>")).startswith("250")
        assert (await self.ask("DATA")).startswith("354")

    async def mail(self, text: bytes, *recipients: str) -> str:
        """A whole mail; `text` as it is on the wire, without the end mark. The final reply."""
        await self.envelope(*recipients)
        await self.send(text + b"\r\n.\r\n")
        return await self.reply()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        heard = b""
        async with asyncio.timeout(_PATIENCE):
            with contextlib.suppress(ConnectionError):
                while block := await self.reader.read(_BLOCK):
                    heard += block
        return heard

    def half_close(self) -> None:
        with contextlib.suppress(OSError):  # the server may have closed already
            self.writer.write_eof()

    def reset(self) -> None:
        """Cuts the connection with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
