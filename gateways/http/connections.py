"""What ASGI has no words for: ending a connection at once, and noticing that its other end has vanished.

What was sent to a client that does not read would stay in memory for as long as it likes, even after the response is over:
only dropping the connection frees it.
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def drop(send: Send) -> None:
    """Ends the connection that this `send` writes to, whatever is still to be written."""
    transport = _transport(send)
    if transport is not None:
        transport.abort()


def drop_when_unreachable(send: Send, seconds: float) -> None:
    """Has the system end it when nothing was acknowledged for so long (tcp(7)), where the system can."""
    transport = _transport(send)
    found = transport.get_extra_info("socket") if transport is not None else None
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if found is not None and option is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))


def _transport(send: Send) -> Any:
    """uvicorn's `send` is a method of what holds the connection."""
    return getattr(getattr(send, "__self__", None), "transport", None)
