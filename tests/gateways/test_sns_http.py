"""The real transport, against a real TLS server on loopback that stands behind the host of SNS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateways.mail_in.sns_http import MAX_BYTES, SECONDS, SnsHttp, Unreachable
from tests.support.sns_double import CERTIFICATE_URL, HOST, certificate, pem, rsa_key

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
NAME = "sns.eu-west-1.amazonaws.com"


class Loopback(AbstractResolver):
    """Every name is this machine, at one port: what is asked for, and its TLS name, stay what they are."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def sns_at(answer: Answer, folder: Path, *, name: str = NAME, seconds: float = SECONDS) -> AsyncIterator[SnsHttp]:
    """A transport that trusts one authority of this test, and a server with a certificate of it for `name`."""
    key, now = rsa_key("tls authority"), datetime.now(UTC)
    since, until = now - timedelta(days=1), now + timedelta(days=1)
    authority = certificate("Test CA", key=key, issuer="Test CA", issuer_key=key, ca=True, since=since, until=until)
    leaf = certificate(
        name, key=rsa_key("tls"), issuer="Test CA", issuer_key=key, dns=(name,), since=since, until=until
    )
    (folder / "leaf.pem").write_bytes(
        pem(leaf) + rsa_key("tls").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (folder / "ca.pem").write_bytes(pem(authority))
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(folder / "leaf.pem")
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving)
    await site.start()
    port = runner.addresses[0][1]
    trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    connector = aiohttp.TCPConnector(resolver=Loopback(port), ssl=trusting)
    async with SnsHttp.session(connector) as session:
        yield SnsHttp(session, seconds=seconds)
    await runner.cleanup()


async def test_a_file_is_fetched_by_its_own_name_and_nothing_else_is_told(tmp_path: Path) -> None:
    seen: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.Response(body=b"pem", headers={"Set-Cookie": "a=b"})

    async with sns_at(answer, tmp_path) as http:
        assert await http.fetch(CERTIFICATE_URL) == b"pem"
        assert await http.fetch(f"{HOST}/?a=b%3Ac&d=e:f") == b"pem"
    assert [request.host for request in seen] == [NAME, NAME]
    assert seen[1].raw_path == "/?a=b%3Ac&d=e:f"
    assert "Cookie" not in seen[1].headers
    assert "Authorization" not in seen[1].headers


async def test_a_host_with_another_certificate_is_not_believed(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"pem")

    async with sns_at(answer, tmp_path, name="sns.evil.com") as http:
        with pytest.raises(Unreachable, match="Certificate"):
            await http.fetch(CERTIFICATE_URL)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int, tmp_path: Path) -> None:
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "https://127.0.0.1/elsewhere"})

    async with sns_at(answer, tmp_path) as http:
        with pytest.raises(Unreachable, match=str(status)):
            await http.fetch(CERTIFICATE_URL)
    assert len(seen) == 1


@pytest.mark.parametrize("status", [201, 204, 400, 403, 404, 500, 503])
async def test_only_a_200_is_an_answer(status: int, tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    async with sns_at(answer, tmp_path) as http:
        with pytest.raises(Unreachable, match=str(status)):
            await http.fetch(CERTIFICATE_URL)


@pytest.mark.parametrize(("size", "fits"), [(MAX_BYTES - 1, True), (MAX_BYTES, True), (MAX_BYTES + 1, False)])
async def test_a_file_has_64_kib_at_most(size: int, fits: bool, tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bytes(size))

    async with sns_at(answer, tmp_path) as http:
        if fits:
            assert len(await http.fetch(CERTIFICATE_URL)) == size
        else:
            with pytest.raises(Unreachable, match="64 KiB"):
                await http.fetch(CERTIFICATE_URL)


async def test_of_an_endless_file_little_is_read(tmp_path: Path) -> None:
    sent = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1600):
            await response.write(bytes(64 * 1024))
            sent += 64 * 1024
        return response

    async with sns_at(answer, tmp_path) as http:
        with pytest.raises(Unreachable, match="64 KiB"):
            await http.fetch(CERTIFICATE_URL)
    assert sent < 20 * 1024 * 1024


async def test_a_silent_host_is_given_up_on(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"drip")
            await asyncio.sleep(0.05)
        return response

    async with sns_at(answer, tmp_path, seconds=0.2) as http:
        with pytest.raises(Unreachable, match="no answer"):
            await http.fetch(CERTIFICATE_URL)


async def test_a_host_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connector = aiohttp.TCPConnector(resolver=Loopback(taken.getsockname()[1]))
        async with SnsHttp.session(connector) as session:
            with pytest.raises(Unreachable, match="Connect"):
                await SnsHttp(session).fetch(CERTIFICATE_URL)


async def test_proxies_of_the_environment_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"pem")

    async with sns_at(answer, tmp_path) as http:
        assert await http.fetch(CERTIFICATE_URL) == b"pem"
