"""In the child: how an answer is given: as it is, cut, torn, in drops, without an end."""

import asyncio
import contextlib
import gzip
import json
import socket
import struct
import uuid
import zlib
from typing import Any

from aiohttp import web

from tests.support.graph.answers import Answer, Asked

_JSON = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
_BLOCK = b"a" * (1 << 16)
_HOUR = 3600


async def say(request: web.Request, asked: Asked, answer: Answer) -> web.StreamResponse:
    """Answer in its manner."""
    manner = answer.manner
    if "hangs" in manner:
        await asyncio.sleep(_HOUR)
    if "hangs" in manner or manner.get("drop") in {"before", "after"}:
        return cut(request)
    headers = {"request-id": str(uuid.uuid4()), "Strict-Transport-Security": "max-age=31536000"} | answer.headers
    headers["client-request-id"] = asked.headers.get("client-request-id", headers["request-id"])
    if asked.immutable:
        headers["Preference-Applied"] = 'IdType="ImmutableId"'
    body = _bytes(answer, headers)
    with contextlib.suppress(ConnectionError):
        if "truncate" in manner:
            body = body[: manner["truncate"]]
        if manner.get("drop") == "inside":
            return await _torn(request, answer.status, headers, body)
        if "endlessHeaders" in manner:
            return await _endless_headers(request, answer.status, manner["endlessHeaders"])
        if manner.keys() & {"drip", "huge", "bomb"}:
            return await _streamed(request, answer.status, headers, body, manner)
        return web.Response(status=answer.status, body=body, headers=headers)
    return web.Response()


def _bytes(answer: Answer, headers: dict[str, str]) -> bytes:
    """The body; in an error the ids are those of the headers."""
    body = answer.body
    if body is None:
        return b""
    if isinstance(body, bytes):
        headers.setdefault("Content-Type", "text/html")
        return body
    headers.setdefault("Content-Type", _JSON)
    inner = body.get("error", {}).get("innerError") if isinstance(body, dict) and "error" in body else None
    if inner is not None:
        inner |= {"request-id": headers["request-id"], "client-request-id": headers["client-request-id"]}
    return json.dumps(body).encode()


def cut(request: web.Request) -> web.Response:
    """A reset instead of an answer: no FIN, an RST."""
    if (transport := request.transport) is not None:
        with contextlib.suppress(OSError):
            own: Any = transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _torn(request: web.Request, status: int, headers: dict[str, str], body: bytes) -> web.StreamResponse:
    """Half of the body that was promised; without one, half of the headers."""
    if not body:
        assert request.transport is not None
        request.transport.write(f"HTTP/1.1 {status} Acc".encode())
        await asyncio.sleep(0.05)
        return cut(request)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.05)
    return cut(request)


async def _endless_headers(request: web.Request, status: int, seconds: float) -> web.StreamResponse:
    transport = request.transport
    assert transport is not None
    transport.write(f"HTTP/1.1 {status} OK\r\nServer: slow\r\n".encode())
    number = 0
    while not transport.is_closing():
        transport.write(f"X-{number}: and another\r\n".encode())
        number += 1
        await asyncio.sleep(seconds)
    return web.Response()


async def _streamed(
    request: web.Request, status: int, headers: dict[str, str], body: bytes, manner: dict[str, Any]
) -> web.StreamResponse:
    if "bomb" in manner:
        headers["Content-Encoding"] = "gzip"
    response = web.StreamResponse(status=200 if status == 204 else status, headers=headers)
    if "drip" in manner:
        response.content_length = len(body)
    await response.prepare(request)
    if "drip" in manner:
        for place in range(len(body)):
            await response.write(body[place : place + 1])
            await asyncio.sleep(1 / manner["drip"])
    elif "huge" in manner:
        await response.write(b'{"value":"')
        for _ in range(manner["huge"] >> 16):
            await response.write(_BLOCK)
        await response.write(b'"}')
    else:
        await _bomb(response, manner["bomb"])
    await response.write_eof()
    return response


async def _bomb(response: web.StreamResponse, size: int) -> None:
    """So many bytes of spaces, before they were packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    spaces = b" " * (1 << 20)
    for _ in range(size >> 20):
        if packed := packer.compress(spaces):
            await response.write(packed)
    await response.write(packer.flush() or gzip.compress(b""))
