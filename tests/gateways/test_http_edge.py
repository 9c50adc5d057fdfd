"""What holds for every request: bounds, headers, errors, and what operators are told. Over a real server."""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import serving
from gateways.http.edge import BODY_BYTES
from gateways.http.serving import HEAD_BYTES
from gateways.local_servers import Servers
from tests.support.http_house import HttpHouse, bearer, http_house, path, served
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"http_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


class Wire:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, house: HttpHouse) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2])))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, seconds: float = 5) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(seconds):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return int(lines[0].split()[1]), headers, body

    async def is_cut(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read() == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "where", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "//api/v1/mailboxes", 404, "not_found"),
        ("GET", "/api/v1/mailboxes/", 404, "not_found"),
        ("GET", "/api/v1/%2e%2e/mailboxes;x", 404, "not_found"),
        ("PUT", "/api/v1/mailboxes", 405, "method_not_allowed"),
        ("PATCH", "/livez", 405, "method_not_allowed"),
        ("GET", "/readyz?wait=soon", 422, "invalid_request"),
    ],
)
async def test_the_frameworks_errors_are_problems_too(
    house: HttpHouse, method: str, where: str, status: int, code: str
) -> None:
    wire = await Wire.to(house)
    await wire.say(f"{method} {where} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    got, headers, body = await wire.answer()
    problem = json.loads(body)
    assert (got, problem["code"]) == (status, code)
    assert headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == headers["x-request-id"]


async def test_a_method_that_is_not_there_is_told_all_that_are(house: HttpHouse) -> None:
    async with house.http.options(f"{house.url}/api/v1/mailboxes/a@mail.example") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD")
    async with house.http.put(f"{house.url}/api/v1/mailboxes") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


async def test_a_fault_of_ours_tells_nothing_and_is_logged(house: HttpHouse, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("password=hunter2")

    router = APIRouter()
    router.add_route("/broken", broken, ["GET"])
    services = replace(house.services, metrics=CollectorRegistry())
    with caplog.at_level(logging.ERROR):
        async with served(services, routers=[router]) as url, house.http.get(f"{url}/broken") as answer:
            text = await answer.text()
    assert (answer.status, json.loads(text)["code"]) == (500, "internal_error")
    assert "hunter2" not in text
    assert "RuntimeError" not in text
    assert any(record.__dict__.get("request_id") == json.loads(text)["request_id"] for record in caplog.records)


async def test_every_answer_keeps_browsers_from_guessing(house: HttpHouse) -> None:
    box = await house.mailbox()
    for where in ("/livez", "/nothing", path(box), path(box) + "/messages"):
        async with house.http.get(house.url + where, headers=bearer(box)) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "Server" not in answer.headers
            assert answer.headers["Cache-Control"] in ("no-store", "private, no-cache")


async def test_a_request_id_is_taken_over_where_it_is_one(house: HttpHouse) -> None:
    for said, kept in (("abc-123_.x", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("<x>", False)):
        async with house.http.get(f"{house.url}/livez", headers={"X-Request-Id": said}) as answer:
            assert (answer.headers["X-Request-Id"] == said) is kept


async def test_one_line_is_logged_and_holds_no_secret(house: HttpHouse, caplog: pytest.LogCaptureFixture) -> None:
    box = await house.mailbox()
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="gateways.http.edge"):
        async with house.http.get(f"{house.url}{path(box)}/messages?token=uct_secret", headers=bearer(box)) as answer:
            assert answer.status == 200
    (line,) = [record.__dict__ for record in caplog.records if record.msg == "request"]
    assert line["route"] == "/api/v1/mailboxes/{address}/messages"
    assert (line["method"], line["status"]) == ("GET", 200)
    assert box["address"] not in str(line)
    assert "uct_" not in str(line)


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "status"), [(BODY_BYTES - 1, 201), (BODY_BYTES, 201), (BODY_BYTES + 1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_has_a_mebibyte_at_most(house: HttpHouse, size: int, status: int, chunked: bool) -> None:
    body = b'{"a": "' + b"x" * (size - 9) + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield body[start : start + 50_000]

    async with house.http.post(f"{house.url}/api/v1/mailboxes", data=pieces() if chunked else body) as answer:
        assert answer.status == status


async def test_a_declared_body_that_is_too_large_is_refused_before_it_comes(house: HttpHouse) -> None:
    wire = await Wire.to(house)
    await wire.say(b"POST /api/v1/mailboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
    status, headers, body = await wire.answer(1)
    assert (status, json.loads(body)["code"]) == (413, "too_large")
    assert headers["connection"] == "close"
    assert await wire.is_cut(2)


async def test_a_body_that_nobody_reads_ends_its_connection(house: HttpHouse) -> None:
    wire = await Wire.to(house)
    await wire.say(b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    status, headers, _ = await wire.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert await wire.is_cut(2)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a": "\\u0000"}', b"[" * 100_000])
async def test_a_body_that_is_no_plain_json_is_refused(house: HttpHouse, body: bytes) -> None:
    async with house.http.post(f"{house.url}/api/v1/mailboxes", data=body) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (422, "invalid_request")


async def test_a_head_has_16_kib_at_most(house: HttpHouse) -> None:
    for size, status in ((HEAD_BYTES - 200, 200), (HEAD_BYTES + 1, 431), (300_000, 431)):
        wire = await Wire.to(house)
        await wire.say(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * size + b"\r\n\r\n")
        got, headers, _ = await wire.answer()
        assert got == status
        if status != 200:
            assert headers["content-type"] == "application/problem+json"


async def test_a_head_of_many_small_lines_is_bounded_too(house: HttpHouse) -> None:
    wire = await Wire.to(house)
    await wire.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n")
    assert (await wire.answer())[0] == 431


async def test_an_endless_head_is_not_gathered(house: HttpHouse) -> None:
    """One line without an end: nothing is parsed, and all the same nothing piles up."""
    wire = await Wire.to(house)
    await wire.say(b"GET /livez HTTP/1.1\r\nX: ")

    async def flood() -> None:
        for _ in range(10_000):
            await wire.say(b"x" * 1000)
            await asyncio.sleep(0)

    with pytest.raises(ConnectionError):
        await flood()


async def test_who_drips_is_cut_and_who_waits_honestly_is_served(
    house: HttpHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 1.0)
    dripping = [await Wire.to(house) for _ in range(50)]
    silent = await Wire.to(house)

    async def drip(wire: Wire) -> None:
        try:
            await wire.say(b"GET /livez HTTP/1.1\r\nX: ")
            for _ in range(40):
                await wire.say(b"x")
                await asyncio.sleep(0.1)
        except ConnectionError:
            pass

    drips = [asyncio.create_task(drip(wire)) for wire in dripping]
    async with house.http.get(f"{house.url}/livez") as answer:
        assert answer.status == 200
    assert all(await asyncio.gather(*(wire.is_cut(4) for wire in [*dripping, silent])))
    for task in drips:
        task.cancel()


async def test_what_is_not_http_hears_a_problem(house: HttpHouse) -> None:
    both = b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for said in (b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", both):
        wire = await Wire.to(house)
        await wire.say(said)
        status, headers, body = await wire.answer()
        assert status == 400
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["code"] == "bad_request"
