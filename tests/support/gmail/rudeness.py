"""How an answer is given: as it is, late, cut, torn, in drops, without an end."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import zlib
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.support.gmail.errors import BY_STATUS, Answer, refusal

_BLOCK = b"a" * (1 << 16)


def instead(failure: dict[str, Any]) -> Answer:
    """The answer that a failure has of its own."""
    status, body = failure.get("status"), failure.get("body")
    kind = failure.get("kind") or BY_STATUS.get(status or 200)
    answer = refusal(kind, until=failure.get("until", 900)) if kind else Answer.json({})
    answer.status = status or answer.status
    if body is not None:
        answer.body = (body if isinstance(body, str) else json.dumps(body)).encode()
        if isinstance(body, str):
            answer.headers["Content-Type"] = "text/html; charset=UTF-8"
    return answer


async def say(request: web.Request, answer: Answer, failure: dict[str, Any]) -> web.StreamResponse:
    """Answer, in the way that the failure asks for."""
    await asyncio.sleep(failure.get("delayAfter", 0))
    if failure.get("drop") == "after":
        return cut(request)
    headers = answer.headers | failure.get("headers", {})
    if "retryAfter" in failure:
        headers["Retry-After"] = str(failure["retryAfter"])
    if "truncate" in failure:
        answer = replace(answer, body=answer.body[: failure["truncate"]])
    if failure.keys() & {"huge", "bomb", "drip", "endlessHeaders"} or failure.get("drop") == "inside":
        with contextlib.suppress(ConnectionError):
            return await _slowly(request, answer, headers, failure)
        return web.Response()
    if answer.status == 204:
        headers.pop("Content-Type", None)
    return web.Response(status=answer.status, body=answer.body or None, headers=headers)


def cut(request: web.Request) -> web.Response:
    """A reset instead of an answer: no FIN, an RST."""
    if (transport := request.transport) is not None:
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own,
        ):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _slowly(
    request: web.Request, answer: Answer, headers: dict[str, str], failure: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    if "endlessHeaders" in failure:
        return await _endless(request, failure["endlessHeaders"])
    if "huge" in failure:
        response.content_length = failure["huge"]
        await response.prepare(request)
        for left in range(failure["huge"], 0, -len(_BLOCK)):
            await response.write(_BLOCK[:left])
        return response
    if "bomb" in failure:
        response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        squeezing = zlib.compressobj(wbits=31)
        for left in range(failure["bomb"], 0, -len(_BLOCK)):
            await response.write(squeezing.compress(_BLOCK[:left]))
        await response.write(squeezing.flush())
        return response
    response.content_length = len(answer.body)
    await response.prepare(request)
    if failure.get("drop") == "inside":
        await response.write(answer.body[: len(answer.body) // 2])
        await asyncio.sleep(0.05)  # what was written shall arrive before the reset
        return cut(request)
    for place in range(len(answer.body)):
        await response.write(answer.body[place : place + 1])
        await asyncio.sleep(1 / failure["drip"])
    return response


async def _endless(request: web.Request, pause: float) -> web.Response:
    """A head that has one line more every `pause` seconds, until the caller has enough."""
    transport = request.transport
    if transport is not None:
        transport.write(b"HTTP/1.1 200 OK\r\n")
    while transport is not None and not transport.is_closing():
        transport.write(b"X-More: a\r\n")
        await asyncio.sleep(pause)
    return cut(request)
