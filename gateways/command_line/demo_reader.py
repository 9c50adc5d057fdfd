"""The reader of the tour: an HTTP client that knows nothing but the public surface."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from gateways.command_line.failures import FAILED, NOT_ALLOWED, NOT_FOUND, Failed

LIMIT: Final = aiohttp.ClientTimeout(total=15)
#: A stream says something at least every 15 s.
STREAM_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
CODES: Final = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND, 410: NOT_FOUND}


class Stream:
    """An open stream of server-sent events (WHATWG HTML 9.2)."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._lines = answer.content

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name and its data. Raises Failed where the stream ends instead."""
        name = ""
        while line := await self._lines.readline():
            field, _, value = line.decode().rstrip("\r\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                return name, json.loads(value)
        raise Failed("The stream ended before the mail was seen: look at the log of the role `http`.")


class Reader:
    """One inbox, as whoever asked for it sees it."""

    def __init__(self, session: aiohttp.ClientSession, root: str, inbox: dict[str, Any]) -> None:
        self._session = session
        self._root = root
        self._headers = {"Authorization": f"Bearer {inbox['session_token']}"}
        self.address: str = inbox["address"]
        self.expires_at: str = inbox["expires_at"]
        self.here = f"/api/v1/mailboxes/{self.address}"

    @classmethod
    @asynccontextmanager
    async def opened(cls, host: str, port: int) -> AsyncIterator["Reader"]:
        """A new inbox, deleted when the block ends."""
        root = f"http://{host}:{port}"
        async with aiohttp.ClientSession(timeout=LIMIT) as session:
            async with session.post(f"{root}/api/v1/mailboxes", params={"ttl_minutes": "30"}) as answer:
                reader = cls(session, root, json.loads(await _body(answer)))
            try:
                yield reader
            finally:
                async with session.delete(root + reader.here, headers=reader._headers) as answer:
                    await answer.read()

    async def get(self, path: str) -> bytes:
        """The body of what stands at this path. Raises Failed with the sentence of the problem."""
        async with self._session.get(self._root + path, headers=self._headers) as answer:
            return await _body(answer)

    @asynccontextmanager
    async def watching(self, path: str) -> AsyncIterator[Stream]:
        """A stream that is open before the block begins."""
        async with self._session.get(self._root + path, headers=self._headers, timeout=STREAM_LIMIT) as answer:
            if answer.status != 200:
                await _body(answer)
            await answer.content.readline()
            yield Stream(answer)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = await answer.read()
    if answer.status < 300:
        return body
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"{answer.method} {answer.url.path} was answered with {answer.status}."
    again = answer.headers.get("Retry-After")
    raise Failed(f"{detail}{f' Try again in {again} s.' if again else ''}", code=CODES.get(answer.status, FAILED))
