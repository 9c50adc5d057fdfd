"""Logins to an IMAP server that means harm; the SMTP library of others has tests of its own."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateways.providers.mail_logins import Logins, no_secret_told
from tests.support.mail_servers.authority import Authority

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_secret_is_told(logins: Logins, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with no_secret_told(logins, caplog):
        yield


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def serving_tls(authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    file = tmp_path / "server.pem"
    file.write_text(authority.issue())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


async def test_what_is_on_the_wire_before_tls_is_not_read_after_it(
    logins: Logins, authority: Authority, tmp_path: Path
) -> None:
    """CVE-2011-0411's kind: answers to come, put behind the answer to STARTTLS by somebody in between."""
    context = serving_tls(authority, tmp_path)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK hello\r\n")
        await reader.readline()
        writer.write(b"* CAPABILITY IMAP4rev1 STARTTLS\r\na1 OK done\r\n")
        await reader.readline()
        writer.write(
            b"a2 OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\na3 OK done\r\na4 OK logged in by nobody\r\n"
        )
        await writer.start_tls(context)
        await asyncio.sleep(5)

    async with serving(serve) as port:
        logins.change("imap", port=port, security="starttls")
        failure = await logins.fails(seconds=1.5)
    assert failure.code == "provider_unavailable"


@pytest.mark.parametrize(
    "flood",
    [b"* untagged canary\r\n", b"+ go on canary\r\n", b"canary" * 1000, b"* OK {1000000000}\r\n"],
    ids=["untagged", "continuations", "no line", "literals"],
)
async def test_an_answer_without_end_has_one(logins: Logins, flood: bytes) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"* OK hello\r\n")
        await reader.readline()
        while sent < 1 << 28:
            writer.write(flood * 100)
            await writer.drain()
            sent += len(flood) * 100

    async with serving(serve) as port:
        logins.change("imap", host="127.0.0.1", port=port, security="none")
        failure = await logins.fails()
    assert failure.code == "provider_unavailable"
    assert sent < 32 << 20
