"""The live streams: server-sent events and WebSockets, as raw ASGI (DESIGN 4, rule 10, and 6).

    GET /api/v1/mailboxes/{address}/events    a mailbox's new messages, until its end
    WS  /ws/inbox/{address}                   the same over a WebSocket
    GET /v1/events                            everything the caller may see

What is promised: nothing is missed and nothing repeated, by position, over any number of reconnects; nothing is told before
it can be read. One tail, one timer and one opening of a summary serve all clients of a process; an idle client costs no task
of ours. Mount it before anything that wraps `send`: dropping a client that doesn't read needs its connection.
"""

import logging
from collections.abc import Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from gateways.http import problems, stream_operations
from gateways.http.account_stream import AccountStream
from gateways.http.admission import Admits, Admitted, Asked, closing, too_many
from gateways.http.connections import Receive, Scope, Send
from gateways.http.edge import Answer, instance_of, request_id_of
from gateways.http.endings import TOO_BIG, inbox_ended
from gateways.http.fanout import Fanout
from gateways.http.frames import Frames
from gateways.http.open_streams import OpenStreams
from gateways.http.problems import Problem
from gateways.http.sse import AccountSse, AllSse, InboxSse
from gateways.http.stream_measures import StreamMeasures
from gateways.http.streams import Stream, Wire
from gateways.http.websocket import InboxWebSocket
from gateways.log.tail import Tail
from gateways.stores.folded import FoldedPositions
from gateways.stores.keyring import Keyring
from gateways.stores.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

MAILBOXES: Final = "/api/v1/mailboxes/"
EVENTS: Final = "/events"
ALL: Final = "/v1/events"
WEBSOCKETS: Final = "/ws/inbox/"
UPGRADE: Final = {"Upgrade": "websocket", "Connection": "Upgrade"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Events waiting for one client; streams of one owner and in all; seconds a client may not read; seconds between two
    signs of life (a WebSocket's ping: four times that); bytes of a frame that a client sends."""

    queue: int = 256
    per_owner: int = 5_000
    in_all: int = 20_000
    reader_seconds: float = 30
    turn_seconds: float = 7.5
    frame_bytes: int = 65_536


class Live:
    """The streams of this process. `tail` must be following before it starts."""

    def __init__(
        self,
        admits: Admits,
        tail: Tail,
        folded: FoldedPositions,
        pool: Pool,
        keyring: Keyring,
        *,
        bounds: Bounds | None = None,
        metrics: CollectorRegistry | None = None,
    ) -> None:
        self._admits = admits
        self._bounds = bounds = bounds or Bounds()
        self.frames = Frames(pool, keyring)
        self._measures = StreamMeasures(metrics or CollectorRegistry())
        self._fanout = Fanout(
            tail, folded, pool, self.frames, self._measures, queue=bounds.queue, reader_seconds=bounds.reader_seconds
        )
        self.streams = OpenStreams(self._fanout, self.frames, tail, pool, turn_seconds=bounds.turn_seconds)
        self._closing = False
        self._sse, self._all, self._websocket = InboxSse(), AllSse(), InboxWebSocket()
        self._account = AccountSse()

    async def start(self) -> None:
        self._fanout.start()
        self.streams.start()

    async def stop(self) -> None:
        await self.close_all()
        await self.streams.stop()
        await self._fanout.stop()

    async def close_all(self) -> None:
        """Ends every stream and opens no more; call it before the server waits for its connections."""
        self._closing = True
        await self.streams.close()

    @staticmethod
    def handles(scope: Scope) -> bool:
        """Whether this request is for a stream."""
        path: str = scope.get("path", "")
        if scope["type"] == "websocket":
            return path.startswith(WEBSOCKETS)
        return scope["type"] == "http" and (
            path == ALL or path.startswith(WEBSOCKETS) or (path.endswith(EVENTS) and _address(path) is not None)
        )

    @staticmethod
    def paths() -> dict[str, Any]:
        """What OpenAPI says of them."""
        return stream_operations.paths()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.ws_mailbox(scope, receive, send)
        elif scope["path"].startswith(WEBSOCKETS):
            scope["query_string"] = b""
            await _say(
                Problem("upgrade_required", "This is a WebSocket: connect to it by `ws:` or `wss:`.", UPGRADE),
                scope,
                receive,
                send,
            )
        elif scope["path"] == ALL:
            await self.sse_all(scope, receive, send)
        else:
            await self.sse_mailbox(scope, receive, send)

    def sse_mailbox(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        asked = Asked.of(scope)
        admitting = self._admits.to_mailbox(asked, _address(scope["path"]) or "")
        return self._serve_sse(scope, receive, send, wire=self._sse, asked=asked, admitting=admitting)

    def sse_all(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        asked = Asked.of(scope)
        admitting = self._admits.to_all(asked)
        return self._serve_sse(scope, receive, send, wire=self._all, asked=asked, admitting=admitting)

    async def ws_mailbox(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Asked.of(scope)
        await receive()
        try:
            stream = await self._admit(
                self._admits.to_mailbox(asked, scope["path"].removeprefix(WEBSOCKETS)), self._websocket, send
            )
        except Problem as problem:
            self._measures.refused(self._websocket.kind, problem.status)
            await self._refuse_websocket(problem, scope, receive, send)
            return
        with self.streams.holding(stream):
            stream.begin(asked.resume_from)
            while (message := await receive())["type"] != "websocket.disconnect":
                if _length(message) > self._bounds.frame_bytes:
                    stream.end(TOO_BIG)

    async def _serve_sse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        wire: Wire,
        asked: Asked,
        admitting: Coroutine[Any, Any, Admitted],
    ) -> None:
        """Waits for the client to leave, or for the end to have been sent; everything else happens to the stream."""
        try:
            if scope["method"] != "GET":
                admitting.close()
                raise Problem("method_not_allowed", "This is a stream: only GET reads it.", {"Allow": "GET"})
            stream = await self._admit(admitting, wire, send)
        except Problem as problem:
            self._measures.refused(wire.kind, problem.status)
            await _refuse(problem, scope, receive, send)
            return
        with self.streams.holding(stream):
            stream.begin(asked.resume_from)
            del asked, admitting
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _admit(self, admitting: Coroutine[Any, Any, Admitted], wire: Wire, send: Send) -> Stream:
        """Raises a Problem."""
        try:
            admitted = await admitting
        except UNREACHABLE as error:
            log.warning("nobody can be admitted", extra={"cause": repr(error)})
            raise problems.unavailable() from error
        if self._closing:
            raise closing()
        if admitted.key in self.streams.revoked:
            raise Problem("credentials_invalid", "The API key has been revoked.")
        if len(self.streams) >= self._bounds.in_all or self.streams.of_owner(admitted.owner) >= self._bounds.per_owner:
            raise too_many()
        stream = self._stream(admitted, wire, send)
        stream.key = admitted.key
        return stream

    def _stream(self, admitted: Admitted, wire: Wire, send: Send) -> Stream:
        row, owner, partition = admitted.mailbox, admitted.owner, admitted.partition
        if row is None:
            return AccountStream(
                self._fanout, self._account, send, owner=owner, partition=partition, topics=admitted.topics
            )
        stream = Stream(self._fanout, wire, send, watched=row.mailbox, owner=owner, partition=partition)
        stream.expires_at = row.expires_at.timestamp()
        return stream

    async def _refuse_websocket(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        """Before accepting, so that the handshake fails: 403 on the wire, and where the fault is not the client's, its
        own status. A mailbox that has ended says so and closes."""
        if problem.status == 410:
            for message in [*self._websocket.first(None), *self._websocket.last(inbox_ended("expired"))]:
                await send(message)
        elif problem.status in (429, 503) and "websocket.http.response" in scope.get("extensions", {}):
            await _say(problem, scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1013 if problem.status in (429, 503) else 1008})


def _address(path: str) -> str | None:
    """The address in the path of a mailbox's stream."""
    address = path.removeprefix(MAILBOXES).removesuffix(EVENTS)
    return address if path.startswith(MAILBOXES) and address and "/" not in address else None


def _length(message: MutableMapping[str, Any]) -> int:
    """Of what a client sent over a WebSocket; a text has at least as many bytes as characters."""
    return len(message.get("text") or message.get("bytes") or "")


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """A mailbox that has ended answers 204, which tells a browser to stop."""
    if problem.status == 410:
        headers = [(b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        await _say(problem, scope, receive, send)


async def _say(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """As every other refusal: with the request's id, and headers that keep browsers from guessing."""
    scope["request_id"] = request_id_of(dict(scope["headers"]))
    response = problem.response(instance_of(scope), scope["request_id"])
    await response(scope, receive, send if scope["type"] == "websocket" else Answer(scope, send))
