"""Calls over HTTP to providers: bounded in time and size, measured, and never repeated by themselves.

No redirects, proxies, cookies or unpacking. What a provider or a user wrote is in no exception: a message of a library may
hold the URL, and an answer may hold a token.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

import aiohttp
import orjson
from yarl import URL

from gateways.providers.egress import Egress
from gateways.providers.hosts import HostNotAllowed
from gateways.providers.measures import ProviderMeasures

#: Bytes that are read of an answer. The longest that any provider sends, a set of keys, is a few KiB.
MAX_BYTES: Final = 1024 * 1024
#: Calls at once; the longest queues are those of refreshes.
AT_ONCE: Final = 256
#: Less than any server keeps a connection open without a request, so that none is closed under one.
KEEPALIVE_SECONDS: Final = 4

Request = AbstractAsyncContextManager[aiohttp.ClientResponse]
FailureCode = Literal[
    "unreachable",
    "timed_out",
    "rate_limited",
    "server_error",
    "answer_unreadable",
    "answer_too_large",
    "refused",
]


class CallFailed(Exception):
    """No answer that could be used. Another call may get one. `retry_after`: seconds the provider asked us to wait."""

    def __init__(self, code: FailureCode, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a status of 200 to 299 or 400 to 499. `body` is None where it is no JSON object."""

    status: int
    body: Mapping[str, Any] | None = field(repr=False)

    @property
    def ok(self) -> bool:
        return self.status < 300

    def json(self) -> Mapping[str, Any]:
        """The body. Raises CallFailed where it is no JSON object."""
        if self.body is None:
            raise CallFailed("answer_unreadable")
        return self.body


class Calls:
    """The calls of one process: `own` goes to endpoints that the operator set, `guarded` to those that users named."""

    def __init__(
        self, own: aiohttp.ClientSession, guarded: aiohttp.ClientSession, measures: ProviderMeasures, seconds: float
    ) -> None:
        self._own = own
        self._guarded = guarded
        self._measures = measures
        self._seconds = seconds

    @staticmethod
    @asynccontextmanager
    async def opened(
        egress: Egress, measures: ProviderMeasures, tls: ssl.SSLContext, seconds: float
    ) -> AsyncIterator["Calls"]:
        """Calls that take at most so many seconds each, and let go of their connections at the end."""
        plain = aiohttp.TCPConnector(limit=AT_ONCE, keepalive_timeout=KEEPALIVE_SECONDS, ssl=tls)
        checked = egress.connector(limit=AT_ONCE, keepalive_timeout=KEEPALIVE_SECONDS, ssl=tls)
        async with _session(plain) as own, _session(checked) as guarded:
            yield Calls(own, guarded, measures, seconds)

    async def post(
        self,
        provider: str,
        operation: str,
        url: URL,
        form: str,
        *,
        guarded: bool = False,
        expects_json: bool = True,
    ) -> Answer:
        """Sends an encoded form. Raises CallFailed; a failure after it was sent leaves open what it has done."""
        session = self._guarded if guarded else self._own
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        request = session.post(url, data=form.encode(), headers=headers, allow_redirects=False)
        return await self._measured(provider, operation, request, expects_json=expects_json)

    async def get(self, provider: str, operation: str, url: URL, access_token: str | None = None) -> Answer:
        """Asks an endpoint that the operator set, with a bearer token where one is given. Raises CallFailed."""
        headers = {"Accept": "application/json"}
        if access_token is not None:
            headers["Authorization"] = f"Bearer {access_token}"
        request = self._own.get(url, headers=headers, allow_redirects=False)
        return await self._measured(provider, operation, request, expects_json=True)

    async def _measured(self, provider: str, operation: str, request: Request, *, expects_json: bool) -> Answer:
        with self._measures.call(provider, operation) as outcome:
            try:
                answer = await self._answered(request)
                if answer.ok and expects_json:
                    answer.json()
            except CallFailed as failure:
                outcome.is_(failure.code)
                raise
            outcome.is_("ok" if answer.ok else "refused")
            return answer

    async def _answered(self, request: Request) -> Answer:
        try:
            async with asyncio.timeout(self._seconds), request as answer:
                _check_status(answer)
                return Answer(answer.status, json_object(await _read(answer.content)))
        except HostNotAllowed:
            raise CallFailed("refused") from None
        except TimeoutError:
            raise CallFailed("timed_out") from None
        except aiohttp.ClientPayloadError:
            raise CallFailed("answer_unreadable") from None
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL):
            raise CallFailed("answer_unreadable") from None
        except (aiohttp.ClientError, OSError):
            raise CallFailed("unreachable") from None
        except ValueError:
            # aiohttp's own word for bytes that are no HTTP, in some places.
            raise CallFailed("answer_unreadable") from None


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        # The whole call is bounded by us; small answers that unpack to large ones are not worth their trouble.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
    )


def _check_status(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 429:
        raise CallFailed("rate_limited", retry_after(answer.headers.get("Retry-After")))
    if answer.status >= 500:
        raise CallFailed("server_error", retry_after(answer.headers.get("Retry-After")))
    if 300 <= answer.status < 400:
        # Followed, it would take what we send to wherever somebody likes.
        raise CallFailed("answer_unreadable")


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for block in content.iter_chunked(16 * 1024):
        body += block
        if len(body) > MAX_BYTES:
            raise CallFailed("answer_too_large")
    return bytes(body)


def json_object(body: bytes) -> Mapping[str, Any] | None:
    """A JSON object, or None for whatever else it is."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After asks us to wait (RFC 9110, 10.2.3): it says so many, or a date. None for anything else."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
