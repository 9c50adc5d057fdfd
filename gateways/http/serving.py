"""The web server: uvicorn, with the bounds that it doesn't have itself.

A client has ten seconds to say its request's head and 16 KiB to say it in, on a new connection as on one kept alive; one that
drips is cut, whoever it is. What a client does not read is not kept for it: a minute after an answer its connection is
dropped. A connection that has become a WebSocket is no longer ours to bound: its stream does that.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateways.http import problems

HEAD_BYTES: Final = 16_384
HEAD_SECONDS: Final = 10
KEEP_ALIVE_SECONDS: Final = 15
#: Seconds that an answer may lie unread before its connection is dropped.
UNREAD_SECONDS: Final = 60
GRACE_SECONDS: Final = 10
WEBSOCKET_BYTES: Final = 65_536
WEBSOCKET_QUEUE: Final = 4


class BoundedHttp(HttpToolsProtocol):
    """One connection, whose requests' heads are bounded in size and time."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _too_large = False
    _is_websocket = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        self._has_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        between_requests = self.cycle is None or self.cycle.response_complete
        if between_requests:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_websocket or self.transport.is_closing() or not between_requests:
            return
        if self.cycle is None or self.cycle.response_complete:
            # Still no whole head: uvicorn has stopped its own clock at the first byte.
            if self._head_bytes > HEAD_BYTES:
                self._refuse_head()
            elif self._head_timer is None:
                self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_said = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._head_arrived()
        self._head_bytes = 0
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on another protocol hears of the connection, so no clock of this one may run on."""
        self._is_websocket = True
        self._head_arrived()
        self._has_read()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """A problem instead of plain text."""
        del msg
        code, status = ("bad_request", 431) if self._too_large else ("bad_request", 400)
        detail = f"The request's head is larger than {HEAD_BYTES} bytes." if self._too_large else "This is not HTTP."
        body = bytes(problems.Problem(code, detail, status=status).response("/", "").body)
        phrase = b"431 Request Header Fields Too Large" if self._too_large else b"400 Bad Request"
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (phrase, len(body), body)
        )
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._has_read()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits until the client has read what we sent, however long it takes.
        self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def _count(self, size: int) -> None:
        self._head_said += size
        if self._head_said > HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")

    def _refuse_head(self) -> None:
        self._too_large = True
        self.send_400_response("")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._cut)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _has_read(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _cut(self) -> None:
        self._head_timer = None
        self.transport.abort()


class Server(uvicorn.Server):
    """A server that leaves signals to the process it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(
    app: ASGIApp, host: str = "127.0.0.1", port: int = 8080, *, uds: str | None = None, proxies: str = ""
) -> uvicorn.Server:
    """A server for the application. `proxies`: addresses, by commas, whose `X-Forwarded-For` is believed."""
    more: dict[str, Any] = {"forwarded_allow_ips": proxies} if proxies else {}
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        uds=uds,
        http=BoundedHttp,
        ws="websockets-sansio",
        ws_max_size=WEBSOCKET_BYTES,
        ws_max_queue=WEBSOCKET_QUEUE,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **more,
    )
    return Server(config)
