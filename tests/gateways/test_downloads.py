"""What readers of downloads make a process hold has a bound, and is given back however a download ends."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateways.http import downloads, refusals
from gateways.http.downloads import Room, download
from gateways.http.edge import Edge
from gateways.http.measures import Measures
from gateways.http.problems import Problem
from gateways.http.serving import server
from gateways.local_ports import free_port
from tests.support.waiting import until

LARGE = os.urandom(1 << 24)  # more than what a connection buffers on the loopback
SMALL = LARGE[: downloads.UNCOUNTED_BYTES]
ETAG = '"e"'


async def large(request: Request) -> Response:
    return _downloaded(request, LARGE)


async def small(request: Request) -> Response:
    return _downloaded(request, SMALL)


def _downloaded(request: Request, body: bytes) -> Response:
    async def read() -> bytes:
        return body

    return download(request, read, held=len(body), name="mail.eml", media_type="message/rfc822", etag=ETAG)


@dataclass
class Served:
    """A server with one large and one small download, and room for one and a half of the large."""

    port: int
    room: Room
    http: aiohttp.ClientSession

    async def get(self, path: str = "/large", method: str = "GET", **headers: str) -> tuple[int, bytes]:
        answer = await self.http.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            headers={name.replace("_", "-"): text for name, text in headers.items()},
        )
        return answer.status, await answer.read()

    async def begin(self, headers: bytes = b"") -> asyncio.StreamWriter:
        """Asks for the large one, and reads no further than the first bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 20")
        return writer

    async def has_left(self, size: int) -> bool:
        return self.room.left == size

    async def is_empty(self) -> bool:
        return await self.has_left(ROOM_BYTES)


ROOM_BYTES = len(LARGE) * 3 // 2


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    room, port = Room(ROOM_BYTES), free_port()
    monkeypatch.setattr(downloads, "ROOM", room)
    routes = [Route("/large", large, methods=["GET"]), Route("/small", small, methods=["GET"])]
    app = FastAPI(routes=list(routes))
    refusals.install(app, routes)
    serving = server(Edge(app, Measures(CollectorRegistry()), refusals.problem_of), port=port)
    running = asyncio.create_task(serving._serve())

    async def started() -> bool:
        return serving.started

    await until(started)
    async with aiohttp.ClientSession() as http:
        yield Served(port, room, http)
    serving.should_exit = True
    await running


async def test_a_download_too_many_is_put_off_until_a_slow_reader_has_gone(served: Served) -> None:
    slow = await served.begin()
    answer = await served.http.get(f"http://127.0.0.1:{served.port}/large")
    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await answer.json())["code"] == "unavailable"
    assert await served.get("/small") == (200, SMALL)
    slow.transport.abort()
    await until(served.is_empty)
    assert await served.get() == (200, LARGE)
    await until(served.is_empty)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"If_None_Match": ETAG}, 304),
        ("GET", {"Range": "bytes=0-99999"}, 206),
        ("GET", {"Range": "bytes=99999999-"}, 416),
    ],
)
async def test_room_is_given_back_however_a_download_is_answered(
    served: Served, method: str, headers: dict[str, str], status: int
) -> None:
    assert (await served.get(method=method, **headers))[0] == status
    await until(served.is_empty)


async def test_a_range_takes_the_room_of_the_whole_while_that_is_read_and_then_of_what_is_sent(served: Served) -> None:
    slow = await served.begin(b"Range: bytes=0-15999999\r\n")
    await until(lambda: served.has_left(ROOM_BYTES - 16_000_000))
    assert (await served.get(Range="bytes=0-99999"))[0] == 503
    slow.transport.abort()
    await until(served.is_empty)
    assert await served.get(Range="bytes=0-99999") == (206, LARGE[:100_000])
    await until(served.is_empty)


def test_room_is_given_back_by_one_that_fails() -> None:
    room = Room(100_000)
    with suppress(ConnectionError), room.holding(100_000):
        assert room.left == 0
        raise ConnectionError
    assert room.left == 100_000
    with pytest.raises(Problem), room.holding(100_001):
        pass
    assert room.left == 100_000
