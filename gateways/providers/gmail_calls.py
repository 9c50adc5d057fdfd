"""The methods of Gmail's API that sending takes, for one mailbox, each bounded by the time that its attempt has left.

Methods, scopes and sizes: Gmail's discovery document (gmail.googleapis.com/$discovery/rest?version=v1); units of quota:
developers.google.com/workspace/gmail/api/reference/quota.
"""

import asyncio
import base64
import io
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal

import aiohttp
import orjson
from yarl import URL

from domain.outgoing import MARKER
from gateways.providers.calls import Calls, Reply
from gateways.providers.sending import Spends, uncounted

#: Units of quota that each method costs, for projects made since May 2026, and those that a user has a minute.
UNITS: Final[Mapping[str, int]] = {
    "drafts.create": 10,
    "drafts.get": 5,
    "drafts.list": 5,
    "drafts.send": 100,
    "messages.get": 20,
    "messages.list": 5,
    "messages.send": 100,
}
PER_MINUTE: Final = 6_000

#: Calls of one mailbox at once, in one process: Google answers 429 to "too many concurrent requests", and says no number.
CALLS_AT_ONCE: Final = 8

#: Bytes of a mail, of either way to send one.
MOST_BYTES: Final = 36_700_160
#: Bytes up to which a mail goes in JSON, of which Google takes 5 MiB; a longer one is uploaded.
JSON_BYTES: Final = 3_500_000

MAIL: Final = "https://mail.google.com/"
SEND, COMPOSE, MODIFY, READONLY, METADATA = (
    f"https://www.googleapis.com/auth/gmail.{name}" for name in ("send", "compose", "modify", "readonly", "metadata")
)
#: Scopes with any of which drafts can be made and sent; drafts be read; mails be searched; mails be listed.
DRAFTS: Final = frozenset({MAIL, MODIFY, COMPOSE})
READS_DRAFTS: Final = DRAFTS | {READONLY}
SEARCHES: Final = frozenset({MAIL, MODIFY, READONLY})
LISTS: Final = SEARCHES | {METADATA}

#: What ids of Gmail are made of; anything else can be no part of a path.
ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")


class OutOfTime(Exception):
    """The attempt's time is over before a call has begun."""


class Gmail:
    """Gmail as the owner of one access token meets it. `seconds_left`: until nothing must be begun any more.

    `gate` lets so many calls of the mailbox through at once; `spends` is told the units of quota of each before it is made.

    Every method raises CallFailed and OutOfTime.
    """

    def __init__(
        self,
        calls: Calls,
        api: URL,
        access_token: str,
        scopes: Collection[str],
        seconds_left: Callable[[], float],
        *,
        gate: asyncio.Semaphore,
        spends: Spends = uncounted,
    ) -> None:
        self._calls = calls
        self._api = api
        self._access_token = access_token
        self._scopes = frozenset(scopes)
        self._seconds_left = seconds_left
        self._gate = gate
        self._spends = spends

    def may(self, scopes: frozenset[str]) -> bool:
        """Whether one of these scopes was granted."""
        return bool(self._scopes & scopes)

    async def create_draft(self, raw: bytes, thread: str | None) -> Reply:
        return await self._put("drafts.create", "drafts", raw, thread, within="message")

    async def send_draft(self, draft: str) -> Reply:
        """What is lost of its answer leaves open whether the mail went out."""
        return await self._ask("drafts.send", "POST", self._url("drafts", "send"), orjson.dumps({"id": draft}))

    async def send(self, raw: bytes, thread: str | None) -> Reply:
        """What is lost of its answer leaves open whether the mail went out."""
        return await self._put("messages.send", "messages/send", raw, thread)

    async def draft(self, draft: str, form: Literal["minimal", "metadata"] = "minimal") -> Reply:
        return await self._ask("drafts.get", "GET", self._url("drafts", draft).with_query(format=form))

    async def drafts(self, query: str, most: int) -> Reply:
        url = self._url("drafts").with_query(q=query, maxResults=str(most))
        return await self._ask("drafts.list", "GET", url)

    async def sent(self, most: int, query: str | None = None) -> Reply:
        """What is in Sent, the newest first."""
        words = {"labelIds": "SENT", "maxResults": str(most)} | ({} if query is None else {"q": query})
        return await self._ask("messages.list", "GET", self._url("messages").with_query(words))

    async def message(self, message: str) -> Reply:
        """Its labels, and the fields by which a mail of ours is known."""
        url = self._url("messages", message).with_query(
            [("format", "metadata"), ("metadataHeaders", MARKER), ("metadataHeaders", "Message-ID")]
        )
        return await self._ask("messages.get", "GET", url)

    async def _put(self, method: str, path: str, raw: bytes, thread: str | None, within: str | None = None) -> Reply:
        words: dict[str, Any] = {} if thread is None else {"threadId": thread}
        if len(raw) <= JSON_BYTES:
            words["raw"] = base64.urlsafe_b64encode(raw).decode()
            return await self._ask(method, "POST", self._url(path), orjson.dumps({within: words} if within else words))
        writer = aiohttp.MultipartWriter("related")
        writer.append(orjson.dumps({within: words} if within else words), {"Content-Type": "application/json"})
        writer.append(io.BytesIO(raw), {"Content-Type": "message/rfc822"})
        url = (self._api / "upload/gmail/v1/users/me" / path).with_query(uploadType="multipart")
        return await self._ask(method, "POST", url, await writer.as_bytes(), writer.content_type)

    async def _ask(
        self,
        method: str,
        verb: Literal["GET", "POST"],
        url: URL,
        content: bytes | None = None,
        content_type: str = "application/json",
    ) -> Reply:
        await self._let_through()
        try:
            left = self._seconds_left()
            if left <= 0:
                raise OutOfTime
            self._spends(UNITS[method])
            return await self._calls.ask(
                "gmail",
                method,
                verb,
                url,
                access_token=self._access_token,
                content=content,
                content_type=content_type,
                seconds=left,
            )
        finally:
            self._gate.release()

    async def _let_through(self) -> None:
        try:
            async with asyncio.timeout(max(0.0, self._seconds_left())):
                await self._gate.acquire()
        except TimeoutError:
            raise OutOfTime from None

    def _url(self, *path: str) -> URL:
        url = self._api / "gmail/v1/users/me"
        for part in path:
            url /= part
        return url


def an_id(value: object) -> str | None:
    """An id of Gmail's, or None for what is none."""
    return value if isinstance(value, str) and ID.fullmatch(value) else None
