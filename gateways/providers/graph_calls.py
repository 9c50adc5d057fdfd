"""Calls to Microsoft Graph for one mailbox: with immutable ids, each bounded by the time that its attempt has left."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson
from yarl import URL

from domain.delivery import Deferred
from gateways.providers.calls import MAX_BYTES, Calls, Reply
from gateways.providers.graph_answers import Definite, meaning
from gateways.providers.sending import OUT_OF_TIME

#: Ids that stay the same when a draft is sent and so is moved (learn.microsoft.com/graph/outlook-immutable-id).
IMMUTABLE: Final = {"Prefer": 'IdType="ImmutableId"'}
#: What ids of Graph are made of; anything else can be no part of a path.
ID: Final = re.compile(r"[A-Za-z0-9+/_=-]{1,1024}")


class NotDone(Exception):
    """Graph did not do it, and nothing went out. `answer` is what comes of the attempt."""

    def __init__(self, answer: Definite) -> None:
        super().__init__(type(answer).__name__)
        self.answer = answer


class Graph:
    """Graph as the owner of one access token meets it. `seconds_left`: until nothing must be begun any more."""

    def __init__(self, calls: Calls, root: URL, access_token: str, seconds_left: Callable[[], float]) -> None:
        self._calls = calls
        self._root = root
        self._access_token = access_token
        self.seconds_left = seconds_left

    async def get(self, operation: str, *path: str, **options: str) -> Reply:
        """What is at a path below `/me`; `options` are OData's, without their `$`. Raises CallFailed."""
        url = self._url(path).with_query({f"${name}": value for name, value in options.items()})
        return await self._ask(operation, "GET", url, None)

    async def post(
        self,
        operation: str,
        *path: str,
        content: bytes = b"",
        content_type: str = "application/json",
        most: int = MAX_BYTES,
    ) -> Reply:
        """Raises CallFailed; a failure after it was sent leaves open what it has done."""
        return await self._ask(operation, "POST", self._url(path), content, content_type=content_type, most=most)

    async def put_piece(self, url: URL, piece: bytes, place: str) -> Reply:
        """One piece of a file, to the address of its upload session, which carries an authorization of its own.

        `place` is its Content-Range (RFC 9110, 14.4). Raises CallFailed.
        """
        return await self._calls.ask(
            "outlook",
            "upload",
            "PUT",
            url,
            content=piece,
            content_type="application/octet-stream",
            headers={"Content-Range": place},
            guarded=True,
            seconds=self._seconds(),
        )

    async def _ask(
        self,
        operation: str,
        method: Literal["GET", "POST"],
        url: URL,
        content: bytes | None,
        *,
        content_type: str = "application/json",
        most: int = MAX_BYTES,
    ) -> Reply:
        return await self._calls.ask(
            "outlook",
            operation,
            method,
            url,
            access_token=self._access_token,
            content=content,
            content_type=content_type,
            headers=IMMUTABLE,
            seconds=self._seconds(),
            most=most,
        )

    def _seconds(self) -> float:
        left = self.seconds_left()
        if left <= 0:
            raise NotDone(OUT_OF_TIME)
        return left

    def _url(self, path: tuple[str, ...]) -> URL:
        return URL("/".join([str(self._root / "me"), *(quote(part, safe="$") for part in path)]), encoded=True)


def done(reply: Reply) -> Mapping[str, Any]:
    """The answer to what was done, where nothing could have gone out. Raises NotDone."""
    if not reply.ok:
        raise NotDone(meaning(reply))
    body = reply.body
    if body is None:
        raise NotDone(Deferred("answer_unreadable"))
    return body


def an_id(value: object) -> str:
    """An id of Graph's. Raises NotDone for what is none."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise NotDone(Deferred("answer_unreadable"))
    return value


def as_json(document: Mapping[str, Any]) -> bytes:
    """A document as Graph reads it."""
    return orjson.dumps(document)
