"""Plain GETs to Amazon SNS: certificates and confirmations. What may be fetched is decided in `sns_topics.py`."""

import asyncio
from typing import Protocol

import aiohttp
from yarl import URL

MAX_BYTES = 64 * 1024
SECONDS = 5.0


class Unreachable(Exception):
    """No usable answer came; the same request may succeed later. The text holds no more than a status or a kind of error."""


class Fetches(Protocol):
    """Gets one document of at most 64 KiB from SNS."""

    async def fetch(self, url: str) -> bytes:
        """The body of a 200. Raises Unreachable for every other outcome."""


class SnsHttp:
    """Fetches over TLS with the authorities this machine trusts: 5 s in all, 64 KiB, no redirects, no proxies, no cookies.

    The session is the caller's, who closes it; `session()` makes a fitting one.
    """

    def __init__(self, http: aiohttp.ClientSession, *, seconds: float = SECONDS) -> None:
        self._http = http
        self._seconds = seconds

    @staticmethod
    def session(connector: aiohttp.BaseConnector | None = None) -> aiohttp.ClientSession:
        """A session that keeps nothing between two requests and ignores proxies named in the environment."""
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # Small files that unpack to large ones are not worth their trouble.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def fetch(self, url: str) -> bytes:
        """The body of a 200 at `url`, sent exactly as it is written. Raises Unreachable for every other outcome."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._get(URL(url, encoded=True))
        except TimeoutError:
            raise Unreachable(f"no answer within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(type(error).__name__) from error

    async def _get(self, url: URL) -> bytes:
        async with self._http.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise Unreachable(f"status {answer.status}")
            body = bytearray()
            async for block in answer.content.iter_chunked(16 * 1024):
                body += block
                if len(body) > MAX_BYTES:
                    raise Unreachable("more than 64 KiB")
            return bytes(body)
