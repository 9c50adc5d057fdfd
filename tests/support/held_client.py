"""Stands where the server stands, between a stream and a client that reads only when it is let."""

import asyncio
import json
import re
from collections.abc import MutableMapping
from typing import Any


class HeldClient:
    """Asks for the stream at this path, with a session token or an API key."""

    def __init__(self, path: str, secret: str, token: str = "") -> None:
        headers = [(b"authorization", f"Bearer {secret}".encode()), (b"last-event-id", token.encode())]
        self.scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
        self.sent: list[bytes] = []
        self.gone = asyncio.Event()
        self._may_send = asyncio.Semaphore(0)
        self.is_sending = self.completed = False

    def read(self, most: int = 1_000) -> None:
        """Lets so many sends through."""
        for _ in range(most):
            self._may_send.release()

    @property
    def told(self) -> list[dict[str, Any]]:
        """What it has been told."""
        return [json.loads(data) for data in re.findall(rb"data: (.*)", b"".join(self.sent))]

    @property
    def ids(self) -> list[str]:
        """The ids it has been given."""
        return [found.decode() for found in re.findall(rb"id: (.*)", b"".join(self.sent))]

    @property
    def messages(self) -> list[str]:
        """The messages it has been told of by a mailbox's stream."""
        return [facts["message_id"] for facts in self.told if facts.get("event") == "new_message"]

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.is_sending = True
        await self._may_send.acquire()
        self.is_sending = False
        self.sent.append(message.get("body", b""))
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.completed = True
            self.gone.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}
