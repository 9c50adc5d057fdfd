"""A small client of the Gmail fake, for tests that want to see each answer as it is."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.support.gmail.double import COMPOSE, METADATA, MODIFY, READONLY, SEND, Token

ALICE, BOB = "alice@gmail.test", "bob@gmail.test"
TOKENS = {"alice": Token(ALICE), "bob": Token(BOB)} | {
    name: Token(ALICE, scope)
    for name, scope in {
        "send": SEND,
        "compose": COMPOSE,
        "modify": MODIFY,
        "readonly": READONLY,
        "metadata": METADATA,
    }.items()
}


def mail(to: str = "carol@example.test", subject: str = "hello", *, head: str = "", text: str = "text") -> bytes:
    lines = [f"From: Alice <{ALICE}>", f"To: {to}", f"Subject: {subject}", "Message-ID: <own@postledger.test>"]
    return "\r\n".join([*lines, *filter(None, head.split("\n")), "", text, ""]).encode()


def raw(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


@dataclass
class Caller:
    """Speaks to the fake as one token."""

    http: aiohttp.ClientSession
    token: str | None = "alice"

    async def ask(self, verb: str, path: str, said: Any = None, **words: Any) -> tuple[int, Any]:
        status, body, _ = await self.whole(verb, path, said, **words)
        return status, json.loads(body) if body else None

    async def whole(self, verb: str, path: str, said: Any = None, **words: Any) -> tuple[int, bytes, Any]:
        headers = ({"Authorization": f"Bearer {self.token}"} if self.token else {}) | words.pop("headers", {})
        path = path if path.startswith(("/upload", "/resumable")) else f"/gmail/v1/users/me/{path}"
        words |= {"json": said} if said is not None else {}
        async with self.http.request(verb, path, headers=headers, allow_redirects=False, **words) as answer:
            return answer.status, await answer.read(), answer.headers

    async def draft(self, content: bytes, **words: Any) -> str:
        status, told = await self.ask("POST", "drafts", {"message": {"raw": raw(content), **words}})
        assert status == 200, told
        return told["id"]
