"""Receivers of every kind (E-01), and addresses that nobody must make us call (L-01 to L-06)."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from domain.callbacks import Answer, Callback, Target
from gateways.providers.egress import Addresses, Egress
from gateways.stores.keyset import Keyset, open_keyset
from gateways.webhooks import receivers
from gateways.webhooks.receivers import MAX_BYTES, Receivers
from tests.gateways.providers.test_hosts import ALLOWED, DENIED
from tests.support.webhook_house import Receiver, answering, receiving

CALLBACK = Callback("whd_1", "acc_1", "whk_1", "send.sent", '{"type":"send.sent"}')
#: What a receiver has for its answer here, in seconds.
SECONDS = 1.5
TRUSTING = ssl.create_default_context()


@pytest.fixture(scope="module")
def keyset(tmp_path_factory: pytest.TempPathFactory) -> Keyset:
    return open_keyset(tmp_path_factory.mktemp("keys") / "keyset.json")


Calls = Callable[[str], Any]


@asynccontextmanager
async def calling(keyset: Keyset, egress: Egress) -> AsyncIterator[Calls]:
    async with Receivers.opened(egress, keyset, seconds=SECONDS) as found:

        async def call(url: str) -> Answer:
            return await found.post(Target(url, "whk_1", (1,)), CALLBACK, {"traceparent": "00-a-b-01"})

        yield call


@pytest.fixture
async def call(keyset: Keyset) -> AsyncIterator[Calls]:
    """Calls that may go to this machine, where the receivers are."""
    async with calling(keyset, Egress(allow_private=True)) as found:
        yield found


def told(answer: Answer) -> tuple[int | None, str | None, float | None]:
    return answer.status, answer.error, answer.retry_after


# ── receivers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (204, None), (299, None), (301, "redirected"), (404, "refused"), (410, "refused"), (500, "refused")],
)
async def test_a_status_is_what_the_receiver_says(call: Calls, status: int, error: str | None) -> None:
    async with receiving(answering(status)) as receiver:
        assert told(await call(receiver.url)) == (status, error, None)
        assert len(receiver.calls) == 1, "nothing is repeated"


async def test_what_is_sent_is_json_with_the_three_headers_and_our_name(call: Calls) -> None:
    async with receiving() as receiver:
        answer = await call(receiver.url)
        (came,) = receiver.calls
    assert answer.ok
    assert came.body == CALLBACK.body.encode()
    assert came.headers["content-type"] == "application/json"
    assert came.headers["user-agent"].startswith("Postledger/")
    assert {name for name in came.headers if name.startswith("webhook-")} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert came.headers["traceparent"] == "00-a-b-01"
    assert "cookie" not in came.headers


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("-5", None),
        ("soon", None),
        ("1e9", None),
    ],
)
async def test_a_receiver_may_say_for_how_long_to_leave_it_alone(
    call: Calls, header: str, seconds: float | None
) -> None:
    async with receiving(answering(429, headers={"Retry-After": header})) as receiver:
        assert told(await call(receiver.url)) == (429, "refused", seconds)


async def test_a_date_to_come_is_seconds_from_now(call: Calls) -> None:
    async with receiving(answering(503, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})) as receiver:
        answer = await call(receiver.url)
    assert answer.status == 503
    assert (answer.retry_after or 0) > 10**9


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(call: Calls, status: int) -> None:
    """L-03: to ourselves, to another scheme, to where nobody may call."""
    async with receiving() as inside:
        for target in (inside.url, "file:///etc/passwd", "gopher://127.0.0.1:25/", "http://169.254.169.254/latest"):
            async with receiving(answering(status, headers={"Location": target})) as receiver:
                assert told(await call(receiver.url)) == (status, "redirected", None)
        assert inside.calls == []


async def hung(_: Receiver, request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def dripping(_: Receiver, request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(status=200)
    await answer.prepare(request)
    for _number in range(300):
        await answer.write(b"x")
        await asyncio.sleep(0.1)
    return answer


async def endless(receiver: Receiver, request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(status=200)
    await answer.prepare(request)
    written = 0
    try:
        while written < 200 * MAX_BYTES:
            await answer.write(b"x" * 16_384)
            written += 16_384
    finally:
        receiver.written = written  # type: ignore[attr-defined]  # what has left this server
    return answer


async def test_who_does_not_answer_is_given_up_in_time(call: Calls) -> None:
    async with receiving(hung) as receiver:
        began = asyncio.get_running_loop().time()
        answer = await call(receiver.url)
        assert told(answer) == (None, "timed_out", None)
        assert SECONDS <= asyncio.get_running_loop().time() - began < SECONDS + 2
        assert SECONDS * 900 <= answer.took_ms < (SECONDS + 2) * 1000


async def test_a_body_that_drips_after_a_2xx_holds_nobody_up(call: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "REST_SECONDS", 0.1)
    async with receiving(dripping) as receiver:
        began = asyncio.get_running_loop().time()
        assert told(await call(receiver.url)) == (200, None, None)
        assert asyncio.get_running_loop().time() - began < SECONDS


async def test_no_more_is_read_of_an_answer_than_64_kib(call: Calls) -> None:
    """What has left the receiver is what we read and what fits between: buffers of the kernel and of two event loops."""
    async with receiving(endless) as receiver:
        assert told(await call(receiver.url)) == (200, None, None)
        async with asyncio.timeout(5):
            while not hasattr(receiver, "written"):
                await asyncio.sleep(0.01)
        assert receiver.written < 150 * MAX_BYTES


@asynccontextmanager
async def raw(answer: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[tuple[str, list[object]]]:
    """A server of bytes: its URL, and everybody who came."""
    came: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        await reader.readuntil(b"\r\n\r\n")
        answer(writer)
        try:
            await writer.drain()
        except OSError:
            return
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", came


def reset(writer: asyncio.StreamWriter) -> None:
    found: Any = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: "


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reset, {(None, "unreachable")}),
        (lambda writer: writer.write(b""), {(None, "unreachable")}),
        (lambda writer: writer.write(b"\xff\xfe\0nonsense\r\n\r\n"), {(None, "answer_unreadable")}),
        (lambda writer: writer.write(b"HTTP/1.1 999999 OK\r\n\r\n"), {(None, "answer_unreadable")}),
        (
            lambda writer: writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
            {(None, "answer_unreadable")},
        ),
        (lambda writer: writer.write(OK_HEAD + b"5\r\n\r\n\xff\xfe\xc3\x28\xa0"), {(200, None)}),
        (lambda writer: writer.write(OK_HEAD + b"500\r\n\r\nshort"), {(200, None)}),
    ],
    ids=["RST", "nothing", "no HTTP", "no status", "huge header", "invalid UTF-8", "cut short"],
)
async def test_whatever_comes_is_an_answer(
    call: Calls, answer: Callable[[asyncio.StreamWriter], Any], expected: set[Any]
) -> None:
    async with raw(answer) as (url, came):
        found = await call(url)
        assert (found.status, found.error) in expected
        assert len(came) == 1, "nothing is repeated"


# ── what must not be called ───────────────────────────────────────────────────────────────────────────────────────────


class Names:
    """A name server that gives one answer after the other, and the last for ever."""

    def __init__(self, *answers: Iterable[str]) -> None:
        self._answers = [list(answer) for answer in answers]

    async def __call__(self, host: str, port: int) -> Addresses:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, (each, port)) for each in answer]


SPELLINGS = [
    "0", "127.1", "2130706433", "0x7f.1", "0177.1", "①②⑦.0.0.1", "127。0。0。1", "localhost.", "[::1]", "[::ffff:127.0.0.1]",
    "[fe80::1%25eth0]", "127.0.0.1.", "0x7f000001", "017700000001",
]  # fmt: skip
TRICKS = [
    "https://u:p@{host}/", "https://u@{host}/", "https://example.org\\@{host}/", "https://example.org#@{host}/",
    "https://{host}#f", "https://{host}:25/", "https://{host}:9092/", "http://{host}/", "ftp://{host}/", "file:///etc/passwd",
    "//{host}/", "https://{host}/\r\nX-Smuggled: 1", "https:///hook", "https://" + "a." * 130 + "org/", "unix:///run/x.sock",
    "https://" + "a" * 64 + ".org/", "https://{host} /", "gopher://{host}:70/_x",
]  # fmt: skip


@dataclass
class Watched:
    """A port of this machine, and whoever has connected to it."""

    port: int
    came: list[object] = field(default_factory=list)

    def hook(self, host: str) -> str:
        return f"https://{host}:{self.port}/hook"


@pytest.fixture
async def inside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """Listens where a call that should not be made would go. Its port is as good as 443 meanwhile."""
    found = Watched(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.came.append(writer.get_extra_info("peername"))
        writer.close()

    v4 = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.port = v4.sockets[0].getsockname()[1]
    v6 = await asyncio.start_server(serve, "::1", found.port)
    monkeypatch.setattr("gateways.providers.egress.WEB_PORTS", frozenset({443, found.port}))
    async with v4, v6:
        yield found


async def test_no_address_off_the_public_internet_is_connected_to(keyset: Keyset, inside: Watched) -> None:
    """L-01: as a name's address, as the host itself, and in every spelling that some resolver takes."""
    for address in DENIED:
        async with calling(keyset, Egress(resolve=Names([address]))) as call:
            assert told(await call(inside.hook("hooks.example.org"))) == (None, "unreachable", None)
    async with calling(keyset, Egress()) as call:
        for host in [*(f"[{one}]" if ":" in one else one for one in DENIED), *SPELLINGS]:
            assert told(await call(inside.hook(host))) == (None, "unreachable", None), host
    assert inside.came == []


async def test_urls_that_are_read_in_two_ways_go_nowhere(keyset: Keyset, inside: Watched) -> None:
    """L-04, and unix sockets of L-06."""
    async with calling(keyset, Egress(resolve=Names(["127.0.0.1"]))) as call:
        for trick in TRICKS:
            answer = await call(trick.replace("{host}", f"127.0.0.1:{inside.port}"))
            assert answer.status is None, trick
            assert (await call(trick.replace("{host}", f"hooks.example.org:{inside.port}"))).status is None
    assert inside.came == []


async def test_one_bad_address_among_good_ones_is_enough(keyset: Keyset, inside: Watched) -> None:
    """L-02: a name server that says all of them at once, and something else each time."""
    public = [address for address in ALLOWED if ":" not in address][:1]
    for answers in ([[*public, "127.0.0.1"]], [["127.0.0.1", *public]], [["10.0.0.1"], ["::1"], ["127.0.0.1"]]):
        async with calling(keyset, Egress(resolve=Names(*answers))) as call:
            for _ in range(3):
                assert told(await call(inside.hook("hooks.example.org"))) == (None, "unreachable", None)
    assert inside.came == []


async def test_who_is_allowed_to_would_connect_there(keyset: Keyset, inside: Watched) -> None:
    """So the tests beside this one would have seen it."""
    async with calling(keyset, Egress(allow_private=True, resolve=Names(["127.0.0.1"]))) as call:
        for host in ("127.0.0.1", "[::1]", "hooks.example.org"):
            assert (await call(inside.hook(host))).error == "unreachable"  # TLS with nobody
    assert len(inside.came) == 3


async def test_what_is_within_can_not_be_told_from_what_is_not_there(keyset: Keyset, inside: Watched) -> None:
    """L-05: a name inside with an open port, one with a closed port, one that does not exist: the same, and as soon."""
    answers = []
    for addresses in (["127.0.0.1"], ["127.0.0.2"], ["10.0.0.1"], []):
        async with calling(keyset, Egress(resolve=Names(addresses))) as call:
            began = asyncio.get_running_loop().time()
            answers.append(told(await call(inside.hook("db.internal.example.org"))))
            assert asyncio.get_running_loop().time() - began < SECONDS / 2
    assert set(answers) == {(None, "unreachable", None)}
    assert inside.came == []


async def test_the_environments_proxies_are_ignored(
    call: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """L-06."""
    async with raw(lambda writer: writer.write(b"HTTP/1.1 200 OK\r\n\r\n")) as (proxy, came), receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert told(await call(receiver.url)) == (204, None, None)
        assert came == []
        assert "authorization" not in receiver.calls[0].headers
