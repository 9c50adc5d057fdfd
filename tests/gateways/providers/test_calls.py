"""The transport against servers that answer as no server should, on real sockets."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from gateways.providers.calls import AT_ONCE, MAX_BYTES, PIECES_BYTES, CallFailed, Calls, json_object, retry_after
from gateways.providers.egress import Egress
from gateways.providers.measures import ProviderMeasures

SECONDS = 0.6
TRUSTING = ssl.create_default_context()
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECRET = "s3cr3t-canary"


@asynccontextmanager
async def calls_to(serve: Serve, *, guarded: bool = False) -> AsyncIterator[tuple[Calls, URL, CollectorRegistry]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server, registry = await asyncio.start_server(handle, "127.0.0.1", 0), CollectorRegistry()
    port = server.sockets[0].getsockname()[1]
    async with server, Calls.opened(Egress(not guarded), ProviderMeasures(registry), TRUSTING, SECONDS) as calls:
        yield calls, URL(f"http://127.0.0.1:{port}/token"), registry


def saying(*parts: bytes) -> Serve:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()

    return serve


def answer(status: str, body: bytes = b"{}", *headers: str) -> Serve:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return saying("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def dripping(writer: asyncio.StreamWriter, start: bytes, drop: bytes) -> None:
    writer.write(start)
    while True:
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await dripping(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" ")


async def drip_header(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await dripping(writer, b"HTTP/1.1 200 OK\r\n", b"X")


async def silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(10)


GZIP = bytes.fromhex("1f8b08000000000000ffabae050043bfa6a302000000")
CASES: list[tuple[str, Serve, str]] = [
    ("html", answer("200 OK", b"<!doctype html><h1>Hello</h1>"), "answer_unreadable"),
    ("empty", answer("200 OK", b""), "answer_unreadable"),
    ("cut JSON", answer("200 OK", b'{"access_token": "ab'), "answer_unreadable"),
    ("cut body", saying(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"a"'), "answer_unreadable"),
    ("a list", answer("200 OK", b"[1]"), "answer_unreadable"),
    ("a number too many", answer("200 OK", b'{"expires_in": NaN}'), "answer_unreadable"),
    ("deep", answer("200 OK", b'{"a":' * 200_000), "answer_unreadable"),
    ("packed", answer("200 OK", GZIP, "Content-Encoding: gzip"), "answer_unreadable"),
    ("no HTTP", saying(b"220 mail.example.org ESMTP\r\n"), "answer_unreadable"),
    ("a header without end", saying(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000), "answer_unreadable"),
    ("headers without end", saying(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000), "answer_unreadable"),
    ("moved", answer("302 Found", b"{}", "Location: http://127.0.0.1:1/"), "answer_unreadable"),
    ("moved for good", answer("308 Permanent Redirect", b"{}", "Location: /again"), "answer_unreadable"),
    ("too many", answer("429 Too Many Requests", b"", "Retry-After: 7"), "rate_limited"),
    ("broken", answer("500 Internal Server Error", b"<h1>"), "server_error"),
    ("away", answer("503 Service Unavailable", b"", "Retry-After: 7"), "server_error"),
    ("hung up", saying(), "unreachable"),
    ("silent", silence, "timed_out"),
    ("slow body", drip_body, "timed_out"),
    ("slow header", drip_header, "timed_out"),
]


@pytest.mark.parametrize(("serve", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_an_answer_that_is_none_is_told_by_its_code(serve: Serve, code: str) -> None:
    async with calls_to(serve) as (calls, url, registry):
        began = time.perf_counter()
        with pytest.raises(CallFailed) as caught:
            await calls.post("gmail", "refresh", url, f"refresh_token={SECRET}")
        assert time.perf_counter() - began < SECONDS + 2
    assert caught.value.code == code
    assert str(caught.value) == code
    assert caught.value.retry_after == (
        7 if code == "rate_limited" or b"503" in str(caught).encode() else caught.value.retry_after
    )
    labels = {"provider": "gmail", "operation": "refresh"}
    assert registry.get_sample_value("postledger_provider_calls_total", {**labels, "outcome": code}) == 1
    assert registry.get_sample_value("postledger_provider_call_seconds_count", labels) == 1


@pytest.mark.parametrize("status", ["429 a", "500 a", "503 a"])
@pytest.mark.parametrize(("headers", "seconds"), [([], None), (["Retry-After: 7"], 7), (["Retry-After: later"], None)])
async def test_a_provider_may_ask_for_a_pause(status: str, headers: list[str], seconds: float | None) -> None:
    async with calls_to(answer(status, b"", *headers)) as (calls, url, _):
        with pytest.raises(CallFailed) as caught:
            await calls.post("gmail", "refresh", url, "a=b")
    assert caught.value.retry_after == seconds


async def test_no_more_is_read_than_the_limit() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        while sent < 1 << 30:
            writer.write(b"a" * 65536)
            await writer.drain()
            sent += 65536

    async with calls_to(flood) as (calls, url, _):
        with pytest.raises(CallFailed, match="answer_too_large"):
            await calls.post("gmail", "refresh", url, "a=b")
        await asyncio.sleep(0.05)
    # What the buffers of two sockets hold comes on top.
    assert sent < MAX_BYTES + 16 * 1024 * 1024


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_the_limit_is_exact(extra: int) -> None:
    body = b"{" + b" " * (MAX_BYTES - 2 + extra) + b"}"
    async with calls_to(answer("200 OK", body)) as (calls, url, _):
        if extra > 0:
            with pytest.raises(CallFailed, match="answer_too_large"):
                await calls.post("gmail", "refresh", url, "a=b")
        else:
            assert (await calls.post("gmail", "refresh", url, "a=b")).body == {}


async def test_an_answer_is_what_it_is() -> None:
    async with calls_to(answer("400 Bad Request", b'{"error": "invalid_grant"}')) as (calls, url, registry):
        found = await calls.post("outlook", "code", url, "a=b")
    assert (found.status, found.ok, found.body) == (400, False, {"error": "invalid_grant"})
    assert SECRET not in repr(found)
    labels = {"provider": "outlook", "operation": "code", "outcome": "refused"}
    assert registry.get_sample_value("postledger_provider_calls_total", labels) == 1


async def test_a_redirect_takes_nothing_anywhere() -> None:
    came = 0

    async def elsewhere(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1

    async with calls_to(elsewhere) as (_, other, _):
        for status in ("301 a", "302 a", "303 a", "307 a", "308 a"):
            async with calls_to(answer(status, b"", f"Location: {other}")) as (calls, url, _):
                with pytest.raises(CallFailed):
                    await calls.post("gmail", "refresh", url, f"refresh_token={SECRET}")
                with pytest.raises(CallFailed):
                    await calls.get("gmail", "profile", url, SECRET)
    assert came == 0


async def test_a_user_s_own_server_on_this_machine_is_not_called() -> None:
    came = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1

    async with calls_to(serve, guarded=True) as (calls, url, _):
        for each in (url.with_host("localhost"), url.with_host("127.0.0.1"), url.with_host("::1")):
            with pytest.raises(CallFailed):
                await calls.post("smtp", "refresh", each, "a=b", guarded=True)
    assert came == 0


async def test_the_environment_s_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with calls_to(answer("200 OK", b'{"a": 1}')) as (calls, url, _):
        assert (await calls.get("gmail", "profile", url)).body == {"a": 1}


async def test_a_cookie_is_not_kept() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\n{}")
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with calls_to(serve) as (calls, url, _):
        await calls.get("gmail", "profile", url)
        await calls.get("gmail", "profile", url)
    assert b"cookie" not in heads[0].lower()


WHOLE = [
    ("200 OK", b'{"id": "a"}', {"id": "a"}, "ok"),
    ("202 Accepted", b"", None, "ok"),
    ("404 Not Found", b'{"error": {}}', {"error": {}}, "refused"),
    ("429 Too Many Requests", b"[]", None, "rate_limited"),
    ("504 Gateway Timeout", b"<h1>", None, "server_error"),
]


@pytest.mark.parametrize(("status", "content", "body", "outcome"), WHOLE)
async def test_an_answer_of_any_status_is_there_to_be_judged(
    status: str, content: bytes, body: object, outcome: str
) -> None:
    async with calls_to(answer(status, content, "Retry-After: 7")) as (calls, url, registry):
        reply = await calls.ask("gmail", "send", "POST", url, access_token=SECRET, content=b"{}")
    assert (str(reply.status), reply.content, reply.body) == (status[:3], content, body)
    assert (reply.ok, reply.retry_after) == (reply.status < 300, 7)
    assert content.decode() == "" or content.decode() not in repr(reply)
    labels = {"provider": "gmail", "operation": "send", "outcome": outcome}
    assert registry.get_sample_value("postledger_provider_calls_total", labels) == 1


NO_ANSWERS = [
    case for case in CASES if case[2] in ("timed_out", "unreachable") or case[0] in ("cut body", "no HTTP", "moved")
]


@pytest.mark.parametrize(("serve", "code"), [case[1:] for case in NO_ANSWERS], ids=[case[0] for case in NO_ANSWERS])
async def test_what_had_left_before_there_was_no_answer_is_told(serve: Serve, code: str) -> None:
    async with calls_to(serve) as (calls, url, _):
        with pytest.raises(CallFailed) as caught:
            await calls.ask("gmail", "send", "POST", url, content=b"{}", seconds=SECONDS / 2)
    assert (caught.value.code, caught.value.sent) == (code, True)


async def test_a_provider_that_is_silent_keeps_no_other_one_waiting() -> None:
    came, all_came, held = 0, asyncio.Event(), asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came == AT_ONCE:
            all_came.set()
        await held.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0, backlog=AT_ONCE)
    silent = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with (
        server,
        calls_to(answer("200 OK")) as (_, quick, _),
        Calls.opened(Egress(True), ProviderMeasures(CollectorRegistry()), TRUSTING, 30) as calls,
    ):
        asked = [asyncio.create_task(calls.ask("gmail", "send", "GET", silent)) for _ in range(AT_ONCE)]
        async with asyncio.timeout(20):
            await all_came.wait()
        assert (await calls.ask("outlook", "send", "GET", quick, seconds=1)).status == 200
        held.set()
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(end) for end in ends} == {"unreachable"}


async def test_what_has_not_left_is_told_as_well() -> None:
    silent = asyncio.Event()

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Calls.opened(Egress(True), ProviderMeasures(CollectorRegistry()), TRUSTING, SECONDS) as calls:
        # A server that never says a word of TLS has heard nothing of the request.
        with pytest.raises(CallFailed) as caught:
            await calls.ask("gmail", "send", "POST", URL(f"https://127.0.0.1:{port}/"), content=b"{}")
        assert (caught.value.code, caught.value.sent) == ("timed_out", False)
        silent.set()
        server.close()
        await server.wait_closed()
        for method in ("GET", "POST", "PUT"):
            with pytest.raises(CallFailed) as caught:
                await calls.ask("gmail", "send", method, URL(f"http://127.0.0.1:{port}/"), content=b"{}")
            assert (caught.value.code, caught.value.sent) == ("unreachable", False)
    async with calls_to(silence, guarded=True) as (calls, url, _):
        with pytest.raises(CallFailed) as caught:
            await calls.ask("gmail", "send", "POST", url, content=b"{}", guarded=True)
        assert caught.value.sent is False


@pytest.mark.parametrize("size", [PIECES_BYTES - 1, PIECES_BYTES, 5 * PIECES_BYTES + 7])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_body_arrives_whole_and_once(size: int, method: Literal["POST", "PUT"]) -> None:
    content, heads, arrived = bytes(range(256)) * (size // 256) + b"x" * (size % 256), [], []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readexactly(size))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        # The second request has come on the same connection, which ends before its answer.

    async with calls_to(serve) as (calls, url, _):
        words = {"content": content, "content_type": "message/rfc822", "access_token": SECRET}
        assert (await calls.ask("gmail", "send", method, url, **words)).ok
        if method == "POST":
            with pytest.raises(CallFailed) as caught:
                await calls.ask("gmail", "send", method, url, **words)
            assert (caught.value.code, caught.value.sent) == ("unreachable", True)
    assert arrived == [content]
    if method == "POST":
        for line in (f"Content-Length: {size}", f"Authorization: Bearer {SECRET}", "Content-Type: message/rfc822"):
            assert line.encode() in heads[0]


NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("-5", None),
        ("1e9", None),
        ("9" * 400, None),
        ("soon", None),
        ("١٢", None),
        ("Sat, 28 Nov 2026 12:01:00 GMT", 60),
        ("Saturday, 28-Nov-26 12:01:00 GMT", 60),
        ("Sat Nov 28 12:01:00 2026", 60),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        ("Sat, 32 Nov 2026 11:00:00 GMT", None),
        ("Sat, 28 Nov 2026 11:00:00 +999999999", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    "body", [b"", b"null", b"1", b'"a"', b"[]", b"{", b'{"a": Infinity}', b"\xff", b'{"a": "\\ud800"}']
)
def test_what_is_no_json_object_is_none(body: bytes) -> None:
    assert json_object(body) is None
