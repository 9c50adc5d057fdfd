"""Nothing is connected to that is not on the public internet, whatever a name server says, and when."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import aiohttp
import pytest

from gateways.providers.egress import Addresses, Egress
from gateways.providers.hosts import HostNotAllowed
from tests.gateways.providers.test_hosts import ALLOWED, DENIED

NAME = "mail.example.org"
TRUSTING = ssl.create_default_context()


class Names:
    """A name server that gives one answer after the other, and the last for ever. It notes what it was asked."""

    def __init__(self, *answers: Iterable[str]) -> None:
        self.answers = [list(answer) for answer in answers]
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Addresses:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, (each, port)) for each in answer]


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[object]]]:
    """A server on loopback: its port, and everybody who has connected to it."""
    came: list[object] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@pytest.mark.parametrize("address", DENIED)
async def test_a_name_with_such_an_address_is_refused(address: str) -> None:
    async with listener() as (port, came):
        with pytest.raises(HostNotAllowed):
            await Egress(resolve=Names([address])).connect(NAME, port)
    assert came == []


@pytest.mark.parametrize("address", DENIED)
async def test_such_an_address_itself_is_refused(address: str) -> None:
    async with listener() as (port, came):
        with pytest.raises(HostNotAllowed):
            await Egress().connect(address, port)
    assert came == []


@pytest.mark.parametrize("mixed", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["2a00::1", "::1"]])
async def test_one_bad_address_among_good_ones_is_enough(mixed: list[str]) -> None:
    with pytest.raises(HostNotAllowed):
        await Egress(resolve=Names(mixed)).addresses(NAME, 993)


async def test_a_name_that_changes_its_address_is_judged_by_the_one_that_is_connected_to() -> None:
    """Rebinding, a thousand times: what was found to be public is what is connected to, and nobody is asked again."""
    public, private = [ALLOWED[0]], ["127.0.0.1"]
    async with listener() as (port, came):
        for turn in range(1000):
            names = Names(public, private) if turn % 2 else Names(private, public)
            egress = Egress(resolve=names)
            if turn % 2:
                assert [address for _, (address, _) in await egress.addresses(NAME, port)] == public
            else:
                with pytest.raises(HostNotAllowed):
                    await egress.connect(NAME, port)
            assert names.asked == [NAME]
    assert came == []


async def test_a_name_is_asked_for_once_for_each_connection() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with listener() as (port, came):
        connection = await Egress(allow_private=True, resolve=names).connect(NAME, port)
        assert connection.getpeername() == ("127.0.0.1", port)
        connection.close()
        await asyncio.sleep(0.05)
    assert names.asked == [NAME]
    assert len(came) == 1


async def test_the_next_address_is_tried_where_one_does_not_answer(free_port: int) -> None:
    async with listener() as (port, _):
        names = Names(["127.0.0.2", "127.0.0.1"])
        connection = await Egress(allow_private=True, resolve=names).connect(NAME, port)
        assert connection.getpeername()[0] == "127.0.0.1"
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        await Egress(allow_private=True, resolve=names).connect(NAME, free_port)


@contextmanager
def silent_listener(address: str, port: int) -> Iterator[None]:
    """Whoever connects hears nothing: the queue of those to be accepted is full."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


async def test_an_address_that_is_silent_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateways.providers.egress.ADDRESS_SECONDS", 0.1)
    async with listener() as (port, _):
        with silent_listener("127.0.0.2", port):
            for others in (["127.0.0.2"], ["127.0.0.3", "127.0.0.2", "127.0.0.2"]):
                egress = Egress(allow_private=True, resolve=Names([*others, "127.0.0.1"]))
                async with asyncio.timeout(2):
                    connection = await egress.connect(NAME, port)
                assert connection.getpeername()[0] == "127.0.0.1"
                connection.close()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await Egress(allow_private=True, resolve=Names(["127.0.0.2"])).connect(NAME, port)


async def test_a_name_without_addresses_is_unreachable() -> None:
    with pytest.raises(OSError, match="no address"):
        await Egress(resolve=Names([])).connect(NAME, 993)


# ── by aiohttp ────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def session(egress: Egress) -> AsyncIterator[aiohttp.ClientSession]:
    connector = egress.connector(limit=10, keepalive_timeout=1, ssl=TRUSTING)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as http:
        yield http


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"])
async def test_http_goes_to_no_such_address_either(address: str) -> None:
    async with listener() as (port, came), session(Egress(resolve=Names([address]))) as http:
        with pytest.raises(HostNotAllowed):
            await http.get(f"http://{NAME}:{port}/")
    assert came == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_http_to_an_address_is_refused_at_the_socket(host: str) -> None:
    """aiohttp asks no resolver for these."""
    async with listener() as (port, came), session(Egress()) as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"http://{host}:{port}/")
    assert came == []


async def test_http_by_a_name_that_is_rebound_is_refused_at_the_second_connection() -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    egress = Egress(resolve=names)
    assert await egress.addresses(NAME, 443)
    async with listener() as (port, came), session(egress) as http:
        with pytest.raises(HostNotAllowed):
            await http.get(f"http://{NAME}:{port}/")
    assert came == []


# ── what may be named ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://①②⑦.0.0.1/",
        "https://auth.example.org:8443/",
        "http://auth.example.org/",
    ],
)
def test_a_url_of_a_user_is_https_at_its_port_and_public(url: str) -> None:
    with pytest.raises(HostNotAllowed):
        Egress().checked_url(url)
    assert Egress(allow_private=True).checked_url(url)


@pytest.mark.parametrize("port", [1, 22, 80, 443, 3306, 5432, 6379, 8080, 9092, 11211])
def test_a_port_that_no_mail_server_has_is_refused(port: int) -> None:
    with pytest.raises(HostNotAllowed):
        Egress().check_mail_server(NAME, port, encrypted=True)
    Egress(allow_private=True).check_mail_server(NAME, port, encrypted=False)


@pytest.mark.parametrize("port", [25, 143, 465, 587, 993, 2525])
def test_a_mail_server_is_reached_with_tls(port: int) -> None:
    Egress().check_mail_server(NAME, port, encrypted=True)
    with pytest.raises(HostNotAllowed):
        Egress().check_mail_server(NAME, port, encrypted=False)
    with pytest.raises(HostNotAllowed):
        Egress().check_mail_server("192.168.0.1", port, encrypted=True)
