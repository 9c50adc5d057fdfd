"""A small HTTP/1.1 client for load: it spends so little on a request that it does not compete with what it measures.

Closed loop: so many connections ask again as soon as they are answered. Open loop: requests begin at their appointed
time, whether or not earlier ones are answered, and a latency counts from that time, so nothing slow hides the requests it
delays.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Self
from urllib.parse import urlsplit

#: Seconds for which a connection is used again.
IDLE_SECONDS = 5.0


@dataclass
class Answers:
    """What came back: how many by status, and how long each took, in milliseconds."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, status: int, began: float) -> None:
        self.statuses[status] += 1
        self.milliseconds.append((time.perf_counter() - began) * 1e3)

    @property
    def per_second(self) -> float:
        return round(self.statuses.total() / self.seconds, 1)


class Connection:
    """One connection that is kept alive; reads bodies with a Content-Length or in chunks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, url: str) -> Self:
        place = urlsplit(url)
        return cls(*await asyncio.open_connection(place.hostname, place.port, limit=1 << 20))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status, and the body."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        body = await (self._reader.readexactly(int(length)) if length else self._chunks(head))
        return int(head[9:12]), body

    async def _chunks(self, head: bytes) -> bytes:
        body = b""
        while b"transfer-encoding: chunked" in head:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            body += (await self._reader.readexactly(size + 2))[:-2]
            if not size:
                break
        return body

    def close(self) -> None:
        self._writer.close()


def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    place = urlsplit(url)
    target = place.path + (f"?{place.query}" if place.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {place.netloc}", *(f"{k}: {v}" for k, v in headers.items())]
    lines += [f"Content-Length: {len(body)}"] if method == "POST" else []
    return "\r\n".join([*lines, "", ""]).encode() + body


async def closed_loop(url: str, *asked: bytes, connections: int, seconds: float) -> Answers:
    """Several requests are asked in turn."""
    answers, turns = Answers(), cycle(asked)
    began = time.perf_counter()

    async def repeat() -> None:
        connection = await Connection.connect(url)
        while (asked_at := time.perf_counter()) < began + seconds:
            status, _ = await connection.ask(next(turns))
            answers.add(status, asked_at)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(repeat())
    answers.seconds = time.perf_counter() - began
    return answers


async def open_loop(url: str, *asked: bytes, per_second: float, seconds: float) -> Answers:
    """Several requests are asked in turn."""
    answers, turns = Answers(), cycle(asked)
    idle: list[tuple[float, Connection]] = []
    began = time.perf_counter()

    async def once(due: float) -> None:
        used_at, connection = idle.pop() if idle else (due, await Connection.connect(url))
        if due - used_at > IDLE_SECONDS:  # the server may be about to close it
            connection.close()
            connection = await Connection.connect(url)
        status, _ = await connection.ask(next(turns))
        answers.add(status, due)
        idle.append((time.perf_counter(), connection))

    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            await asyncio.sleep(max(0, due - time.perf_counter()))
            group.create_task(once(due))
    answers.seconds = time.perf_counter() - began
    for _, connection in idle:
        connection.close()
    return answers
