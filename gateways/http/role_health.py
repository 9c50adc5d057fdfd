"""`/livez`, `/readyz` and `/metrics` for the roles that answer no other HTTP: smtp, work and project."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.types import Receive, Scope, Send

from gateways.http.edge import instance_of
from gateways.http.problems import Problem
from gateways.http.serving import server
from schemas.ids import new_id

CHECK_SECONDS: Final = 3.0
PATHS: Final = ("/livez", "/readyz", "/metrics")
Check = Callable[[], Awaitable[str | None]]


class RoleHealth:
    """A tiny ASGI application. A check answers with a sentence that says what is wrong, or None; or raises it."""

    def __init__(self, checks: Mapping[str, Check], registry: CollectorRegistry) -> None:
        self._checks = dict(checks)
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] not in PATHS:
            problem = Problem("not_found", f"This role answers {', '.join(PATHS)} and nothing else.")
            await problem.response(instance_of(scope), new_id("req"))(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD"):
            problem = Problem("method_not_allowed", "This can only be read.", {"Allow": "GET, HEAD"})
            await problem.response(instance_of(scope), new_id("req"))(scope, receive, send)
            return
        status, kind, body = await self._answer(scope["path"])
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, path: str) -> tuple[int, bytes, bytes]:
        if path == "/livez":
            return 200, b"application/json", b'{"ok":true}'
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST.encode(), generate_latest(self._registry)
        found = dict(zip(self._checks, await asyncio.gather(*map(self._check, self._checks)), strict=True))
        ready = all(said["ok"] for said in found.values())
        return 200 if ready else 503, b"application/json", orjson.dumps({"ok": ready, "dependencies": found})

    async def _check(self, name: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                wrong = await self._checks[name]()
        except Exception as error:  # noqa: BLE001 - whatever keeps a dependency from answering is what we report
            return {"ok": False, "cause": type(error).__name__}
        return {"ok": False, "cause": wrong} if wrong else {"ok": True}


async def open_role_health(
    address: tuple[str, int], checks: Mapping[str, Check], registry: CollectorRegistry, stack: AsyncExitStack
) -> None:
    """Answers until the stack is closed. Raises OSError where the address can't be had."""
    listening = socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    serving = server(RoleHealth(checks, registry), *address)
    task = asyncio.create_task(serving.serve(sockets=[listening]))

    async def close() -> None:
        serving.should_exit = True
        await task

    stack.push_async_callback(close)
