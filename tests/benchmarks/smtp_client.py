"""A plain SMTP client: one command, one answer, no pipelining, as most libraries are."""

import asyncio
import time
from collections.abc import Sequence
from typing import Self

from tests.benchmarks.mails import Mail, token


class SmtpClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, address: tuple[str, int]) -> Self:
        client = cls(*await asyncio.open_connection(*address))
        await client._answered(b"220")
        await client._ask(b"EHLO bench.example\r\n", b"250")
        return client

    async def send(self, recipient: str, wire: bytes) -> None:
        """Returns after `250`; raises ConnectionError at any other answer."""
        await self._ask(b"MAIL FROM:<shop@example.org>\r\n", b"250")
        await self._ask(b"RCPT TO:<%b>\r\n" % recipient.encode(), b"250")
        await self._ask(b"DATA\r\n", b"354")
        await self._ask(wire, b"250")

    async def close(self) -> None:
        await self._ask(b"QUIT\r\n", b"2")
        self._writer.close()

    async def _ask(self, request: bytes, wanted: bytes) -> None:
        self._writer.write(request)
        await self._answered(wanted)

    async def _answered(self, wanted: bytes) -> None:
        while (line := await self._reader.readline())[3:4] == b"-":
            pass
        if not line.startswith(wanted):
            raise ConnectionError(f"wanted {wanted!r}, heard {line!r}")


async def send_many(
    address: tuple[str, int], boxes: Sequence[str], count: int, mail: Mail, *, reused: bool = True, sessions: int = 10
) -> float:
    """Sends so many mails, round-robin over the boxes, in so many sessions at once; the seconds until the last `250`."""
    todo = iter(range(count))
    began = time.perf_counter()

    async def session() -> None:
        client = None
        for number in todo:
            client = client or await SmtpClient.connect(address)
            await client.send(boxes[number % len(boxes)], mail.wire(token()))
            if not reused:
                await client.close()
                client = None
        if client:
            await client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(sessions, count)):
            group.create_task(session())
    return time.perf_counter() - began
