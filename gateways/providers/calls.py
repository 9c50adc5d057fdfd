"""Calls over HTTP to providers: bounded in time and size, measured, and never repeated by themselves.

No redirects, proxies, cookies or unpacking. What a provider or a user wrote is in no exception: a message of a library may
hold the URL, and an answer may hold a token.
"""

import asyncio
import io
import math
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
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
#: Calls at once to one host that the operator set, and to all that users named; the longest queues are those of refreshes.
AT_ONCE: Final = 256
#: Less than any server keeps a connection open without a request, so that none is closed under one.
KEEPALIVE_SECONDS: Final = 4
#: Bytes of a request's body from which it is written in pieces.
PIECES_BYTES: Final = 256 * 1024
NO_HEADERS: Final[Mapping[str, str]] = {}

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
    """No answer that could be used. Another call may get one. `retry_after`: seconds the provider asked us to wait.

    `sent` is False where it is certain that not one byte of the request has left.
    """

    def __init__(self, code: FailureCode, retry_after: float | None = None, *, sent: bool = True) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after = retry_after
        self.sent = sent


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


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of any status but a redirection's. `retry_after`: seconds the provider asked us to wait."""

    status: int
    content: bytes = field(repr=False)
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def body(self) -> Mapping[str, Any] | None:
        """The JSON object that it is; None for whatever else it is."""
        return json_object(self.content)


class _Leaving:
    """Whether a request has begun to leave: set before its first byte is written."""

    def __init__(self) -> None:
        self.begun = False


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
        # None in all: one provider that is silent would keep the others' calls waiting. Whoever calls is bounded.
        plain = aiohttp.TCPConnector(limit=0, limit_per_host=AT_ONCE, keepalive_timeout=KEEPALIVE_SECONDS, ssl=tls)
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

    async def ask(
        self,
        provider: str,
        operation: str,
        method: Literal["GET", "POST", "PUT"],
        url: URL,
        *,
        access_token: str | None = None,
        content: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] = NO_HEADERS,
        guarded: bool = False,
        seconds: float = math.inf,
        most: int = MAX_BYTES,
    ) -> Reply:
        """Any call, with a bearer token where one is given. Raises CallFailed where no whole answer came.

        `seconds` bounds it where that is less than every call's bound; `most` is in bytes of the answer.
        """
        sent = {"Accept": "application/json", **headers}
        if access_token is not None:
            sent["Authorization"] = f"Bearer {access_token}"
        if content is not None:
            sent["Content-Type"] = content_type
        session, leaving = self._guarded if guarded else self._own, _Leaving()
        # From a file aiohttp writes in pieces, and so leaves the loop to others; of mere bytes, all at once. But a PUT that
        # meets a closed connection it repeats, and a file would be half read by then.
        in_pieces = content is not None and len(content) >= PIECES_BYTES and method == "POST"
        body = io.BytesIO(content or b"") if in_pieces else content
        request = session.request(
            method, url, data=body, headers=sent, allow_redirects=False, trace_request_ctx=leaving
        )
        with self._measures.call(provider, operation) as outcome:
            try:
                reply = await self._reply(request, min(self._seconds, seconds), most)
            except CallFailed as failure:
                outcome.is_(failure.code)
                raise CallFailed(failure.code, failure.retry_after, sent=leaving.begun) from None
            outcome.is_(_outcome(reply.status))
            return reply

    async def _reply(self, request: Request, seconds: float, most: int) -> Reply:
        with _failures():
            async with asyncio.timeout(seconds), request as answer:
                _check_not_moved(answer)
                pause = retry_after(answer.headers.get("Retry-After"))
                return Reply(answer.status, await _read(answer.content, most), pause)

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
        with _failures():
            async with asyncio.timeout(self._seconds), request as answer:
                _check_status(answer)
                return Answer(answer.status, json_object(await _read(answer.content)))


@contextmanager
def _failures() -> Iterator[None]:
    """What a transport may raise, in our words."""
    try:
        yield
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
        trace_configs=[_seen_leaving()],
    )


def _seen_leaving() -> aiohttp.TraceConfig:
    async def leaves(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceRequestHeadersSentParams) -> None:
        if isinstance(context.trace_request_ctx, _Leaving):
            context.trace_request_ctx.begun = True

    tracing = aiohttp.TraceConfig()
    # Despite its name it is called before the headers are written (aiohttp, StreamWriter.write_headers).
    tracing.on_request_headers_sent.append(leaves)
    return tracing


def _check_status(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 429:
        raise CallFailed("rate_limited", retry_after(answer.headers.get("Retry-After")))
    if answer.status >= 500:
        raise CallFailed("server_error", retry_after(answer.headers.get("Retry-After")))
    _check_not_moved(answer)


def _check_not_moved(answer: aiohttp.ClientResponse) -> None:
    if 300 <= answer.status < 400:
        # Followed, it would take what we send to wherever somebody likes.
        raise CallFailed("answer_unreadable")


def _outcome(status: int) -> str:
    if status < 300:
        return "ok"
    if status == 429:
        return "rate_limited"
    return "server_error" if status >= 500 else "refused"


async def _read(content: aiohttp.StreamReader, most: int = MAX_BYTES) -> bytes:
    body = bytearray()
    async for block in content.iter_chunked(16 * 1024):
        body += block
        if len(body) > most:
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
