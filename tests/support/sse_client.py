"""A reader of text/event-stream as a browser would be one (WHATWG HTML 9.2), over a socket of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp


@dataclass(frozen=True)
class SseEvent:
    type: str
    id: str
    facts: Any


class SseReader:
    """One connection; `last_id` and `retry_ms` are what a browser would remember."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""
        self.retry_ms: int | None = None
        self.comments = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SseEvent:
        found = await self.next(seconds=30)
        if found is None:
            raise StopAsyncIteration
        return found

    async def next(self, *, seconds: float = 10) -> SseEvent | None:
        """The next event; None at the end of the stream. Raises TimeoutError."""
        name, data, event_id = "message", [], self.last_id
        async with asyncio.timeout(seconds):
            while line := await self.response.content.readline():
                field, _, value = line.decode().rstrip("\n").partition(":")
                value = value.removeprefix(" ")
                match field:
                    case "event":
                        name = value
                    case "data":
                        data.append(value)
                    case "id":
                        event_id = value
                    case "retry":
                        self.retry_ms = int(value)
                    case "" if line != b"\n":
                        self.comments += 1
                    case "":
                        self.last_id = event_id
                        if data:
                            return SseEvent(name, event_id, json.loads("\n".join(data)))
                        name = "message"
        return None


@asynccontextmanager
async def sse(
    url: str, headers: dict[str, str] | None = None, *, last_id: str | None = None
) -> AsyncIterator[SseReader]:
    """An open stream."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    more = {"Last-Event-ID": last_id} if last_id is not None else {}
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, headers={**(headers or {}), **more}) as response,
    ):
        yield SseReader(response)
