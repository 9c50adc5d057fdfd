"""A small client of Graph's mail API, for the tests of the double."""

import base64
import json as json_
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import aiohttp

from tests.support.graph.double import GraphFake, Token

ALICE, BOB = "alice@outlook.test", "bob@outlook.test"
IMMUTABLE = {"Prefer": 'IdType="ImmutableId"'}
#: By the names of the tokens.
TOKENS = {
    "alice": Token(ALICE),
    "bob": Token(BOB),
    "reads": Token(ALICE, "User.Read Mail.Read"),
    "sends": Token(ALICE, "https://graph.microsoft.com/Mail.Send"),
    "writes": Token(ALICE, "Mail.ReadWrite"),
}


@dataclass
class Told:
    """An answer that has been read."""

    status: int
    headers: dict[str, str]
    body: bytes
    json: Any = field(init=False)

    def __post_init__(self) -> None:
        is_json = self.headers.get("content-type", "").startswith("application/json") and self.body
        self.json = json_.loads(self.body) if is_json else None

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


class Caller:
    """Asks one double, as the owner of one token."""

    def __init__(self, http: aiohttp.ClientSession, graph: GraphFake, token: str = "alice") -> None:
        self._http, self._graph, self._token = http, graph, token

    def of(self, token: str) -> "Caller":
        return Caller(self._http, self._graph, token)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        immutable: bool = True,
        authorized: bool = True,
        **headers: str,
    ) -> Told:
        """`path` below …/v1.0, or a whole address; `body` bytes, text or a document; `Content_Type` for its like."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if authorized:
            sent["Authorization"] = f"Bearer {self._token}"
        if immutable:
            sent |= IMMUTABLE
        words: dict[str, Any] = {"data": body} if isinstance(body, bytes | str) else {"json": body}
        url = path if path.startswith("http") else self._graph.url + path
        if "?" in path:
            start, _, query = path.partition("?")
            url, words["params"] = (start if start.startswith("http") else self._graph.url + start), query
        async with self._http.request(method, url, headers=sent, **words) as answer:
            names = {name.lower(): value for name, value in answer.headers.items()}
            return Told(answer.status, names, await answer.read())

    async def draft(self, *, immutable: bool = True, **words: Any) -> str:
        told = await self.ask("POST", "/me/messages", message(**words), immutable=immutable)
        assert told.status == 201, told
        return told.json["id"]

    async def send(self, draft: str, **words: Any) -> Told:
        return await self.ask("POST", f"/me/messages/{draft}/send", b"", **words)

    async def get(self, draft: str, **words: Any) -> Told:
        return await self.ask("GET", f"/me/messages/{draft}", **words)


def person(address: str, name: str = "") -> dict[str, Any]:
    return {"emailAddress": {"address": address, "name": name or address}}


def message(**words: Any) -> dict[str, Any]:
    """What a draft is made of."""
    body = {"contentType": "HTML", "content": "<p>Hello <b>you</b></p>"}
    return {"subject": "hello", "body": body, "toRecipients": [person(BOB, "Bob B.")]} | words


def mime(**headers: str) -> bytes:
    mail = EmailMessage()
    mail["To"], mail["Subject"] = BOB, "hëllo"
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("plain\n")
    mail.add_alternative("<p>rich</p>", subtype="html")
    mail.add_attachment(b"\0\1\2", "image", "png", filename="ünd.png")
    return base64.b64encode(bytes(mail))


def attachment(content: bytes, name: str = "a.bin") -> dict[str, Any]:
    words = {"@odata.type": "#microsoft.graph.fileAttachment", "name": name, "contentType": "application/x-bin"}
    return words | {"contentBytes": base64.b64encode(content).decode()}
