"""The edge: what holds for every request, whatever answers it.

Every answer carries the request's id and headers that keep browsers from guessing; every error is a problem (RFC 9457), also
those of the framework and our own faults, and tells nothing of ours. A body must arrive within a minute, and one that nobody
has read to its end closes its connection. One line is logged for each request: its route's pattern, never its path or
query, since addresses and tokens stand there.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateways.http import problems
from gateways.http.measures import UNMATCHED, Measures
from gateways.http.problems import Problem
from gateways.http.rate_headers import rate_headers
from schemas.ids import new_id

log = logging.getLogger(__name__)

BODY_SECONDS: Final = 60.0
#: Bytes of a request's body.
BODY_BYTES: Final = 1_048_576
#: Who sends too much is still sending when the answer comes, and would lose it where the connection closed at once: so many
#: bytes are thrown away first, as long as more come within so many seconds, and for no longer than so many in all.
LINGER_BYTES: Final = 67_108_864
LINGER_PAUSE_SECONDS: Final = 1.0
LINGER_SECONDS: Final = 10.0
REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Methods that are counted by name; what else a client may invent is one.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Sent unless the answer says otherwise.
USUAL: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class Streams(Protocol):
    """An ASGI application for some paths, which answers for itself from the first byte."""

    def handles(self, scope: Scope) -> bool: ...

    def paths(self) -> dict[str, Any]:
        """What OpenAPI says of them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What is asked so often that it goes past the framework, which knows the same route by `method` and `path`.

    `pattern` finds the path's parameters by name; what it doesn't match goes the long way.
    """

    method: str
    path: str
    pattern: re.Pattern[str]
    handler: Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Bound:
    """Bytes of a request's body, seconds for it to arrive, and what the caller is told of a larger one."""

    bytes: int
    seconds: float
    too_large: Callable[[], Problem]


class Edge:
    """Stands before the application, the shortcuts and the streams. `translate` says what an exception is to the caller.

    `bounds` are those of paths that take other bodies than the rest.
    """

    def __init__(
        self,
        app: ASGIApp,
        measures: Measures,
        translate: Callable[[Exception], Problem | None],
        *,
        streams: Sequence[Streams] = (),
        shortcuts: Sequence[Shortcut] = (),
        bounds: Mapping[str, Bound] | None = None,
    ) -> None:
        self._app = app
        self._measures = measures
        self._translate = translate
        self._streams = tuple(streams)
        self._shortcuts = tuple(shortcuts)
        self._bounds = bounds or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        for streams in self._streams:
            if streams.handles(scope):
                await streams(scope, receive, send)
                return
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, method = perf_counter(), scope["method"]
        if method == "HEAD":
            # Answered as GET is; the server leaves the body out (RFC 9110 9.3.2).
            scope = {**scope, "method": "GET", "head": True}
        headers = dict(scope["headers"])
        request_id = scope["request_id"] = request_id_of(headers)
        answer = Answer(scope, send)
        length = headers.get(b"content-length", b"0")
        bound = self._bounds.get(scope["path"], USUAL_BOUND)
        if length != b"0" or b"transfer-encoding" in headers:
            answer.body = receive = Body(receive, bound)
        try:
            if int(length) > bound.bytes:
                raise bound.too_large()
            await self._dispatch(scope, receive, answer)
        except Exception as error:
            problem = self._translate(error)
            if problem is None:
                log.exception("a request failed by a fault of ours", extra={"request_id": request_id})
                problem = problems.fault_of_ours()
            if answer.whole:
                return  # the framework has told the caller already
            if answer.status:
                raise
            await problem.response(instance_of(scope), request_id)(scope, receive, answer)
        finally:
            self._note(scope, method, answer.status, perf_counter() - began)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        for shortcut in self._shortcuts:
            if shortcut.method == scope["method"] and (found := shortcut.pattern.fullmatch(scope["path"])):
                scope["path_params"], scope["route"] = found.groupdict(), shortcut
                response = await shortcut.handler(Request(scope, receive))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self._measures.answered(method, route, status, seconds)
        if log.isEnabledFor(logging.INFO):
            said = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2)}
            log.info("request", extra={**said, "request_id": scope["request_id"]})


class Answer:
    """`send`, with the headers every answer has."""

    __slots__ = ("_scope", "_send", "body", "status", "whole")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status = 0
        self.whole = False
        self.body: Body | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = [*message.get("headers", ())]
            present = {name for name, _ in headers}
            headers += [pair for pair in USUAL if pair[0] not in present]
            headers.append((b"x-request-id", self._scope["request_id"].encode()))
            rate = self._scope.get("rate")
            if rate is not None and b"ratelimit" not in present:
                headers += [(name.lower().encode(), text.encode()) for name, text in rate_headers(rate).items()]
            if self.body is not None and not self.body.whole:
                headers.append((b"connection", b"close"))
        elif not message.get("more_body", False):
            self.whole = True
            if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and self.body is not None:
                await self._send({**message, "more_body": True})
                await self.body.discard()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)


class Body:
    """`receive` of a request with a body, which has to arrive in time and whole. Raises a Problem (408, 413)."""

    __slots__ = ("_bound", "_deadline", "_left", "_receive", "whole")

    def __init__(self, receive: Receive, bound: Bound) -> None:
        self._receive = receive
        self._bound = bound
        self._deadline = asyncio.get_running_loop().time() + bound.seconds
        self._left = bound.bytes
        self.whole = False

    async def __call__(self) -> Message:
        if self.whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            said = f"The body did not arrive within {self._bound.seconds:.0f} s."
            raise Problem("request_timeout", said) from error
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._bound.too_large()
        self.whole = not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Throws away what still comes, within bounds."""
        left, until = LINGER_BYTES, asyncio.get_running_loop().time() + LINGER_SECONDS
        try:
            async with asyncio.timeout_at(until):
                while not self.whole and left > 0:
                    async with asyncio.timeout(LINGER_PAUSE_SECONDS):
                        message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.whole = not message.get("more_body", False)
        except TimeoutError:
            return


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own, where it is one; a new one otherwise."""
    said = headers.get(b"x-request-id")
    return said.decode() if said and REQUEST_ID.fullmatch(said) else new_id("req")


def too_large() -> Problem:
    return Problem("too_large", f"A request's body may have {BODY_BYTES} bytes.")


USUAL_BOUND: Final = Bound(BODY_BYTES, BODY_SECONDS, too_large)


def instance_of(scope: Scope) -> str:
    """The path that was asked for, as it was sent."""
    raw: Any = scope.get("raw_path") or scope["path"].encode()
    return str(raw.split(b"?")[0].decode("ascii", "replace"))
