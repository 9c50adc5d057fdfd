"""Handing out bytes that a stranger wrote: always as a download, never as something a browser shows."""

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateways.http import problems
from gateways.http.conditional import byte_range, not_modified

#: A type and its subtype (RFC 9110 8.3.1); what is none is only bytes.
MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}(; charset=[A-Za-z0-9._-]{1,40})?", re.ASCII
)
BYTES_TYPE: Final = "application/octet-stream"
#: Names that are devices on Windows, whatever follows the dot.
DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?")
NAME_CHARACTERS: Final = 150
CHUNK_BYTES: Final = 65_536
#: Bytes that the downloads of a process may hold while they are read, and how few of them one may hold uncounted.
HELD_BYTES: Final = 268_435_456
UNCOUNTED_BYTES: Final = 65_536
CROWDED: Final = "So many large downloads are under way that there is no room for this one: try again shortly."


class Room:
    """Memory for bodies while they are read: a slow reader holds the whole of its own for as long as it likes."""

    def __init__(self, size: int) -> None:
        self.left = size

    @contextmanager
    def holding(self, size: int) -> Iterator["Held"]:
        """So many bytes are held until the block ends, however it ends. Raises a Problem (503) where there is no room."""
        held = Held(self)
        held.becomes(size)
        try:
            yield held
        finally:
            held.becomes(0)


class Held:
    """What one download has of a room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def becomes(self, size: int) -> None:
        """From now on it is so much. Raises a Problem (503) where there is no room."""
        counted = size if size > UNCOUNTED_BYTES else 0
        if counted - self._bytes > self._room.left:
            raise problems.unavailable(CROWDED)
        self._room.left -= counted - self._bytes
        self._bytes = counted


#: The room of this process.
ROOM: Final = Room(HELD_BYTES)


def download(
    request: Request, read: Callable[[], Awaitable[bytes]], *, held: int, name: str, media_type: str, etag: str
) -> Response:
    """The bytes or the range that is asked for; `304` where the client has them, and nothing is read then.

    `held` is how many bytes reading them takes up. What answers raises a Problem (416, 503) and what reading raises.
    """
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(name),
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if not_modified(request.headers, etag):
        return Response(status_code=304, headers=headers)
    said = {**headers, "Content-Type": media_type if MEDIA_TYPE.fullmatch(media_type) else BYTES_TYPE}
    return Download(request.headers, read, held, said)


class Download(Response):
    """Read once there is room for it, and then sent.

    Raises a Problem (503), before anything is read, where this process holds as much for others as it may.
    """

    def __init__(
        self, asked: Headers, read: Callable[[], Awaitable[bytes]], held: int, headers: dict[str, str]
    ) -> None:
        super().__init__(headers=headers)
        self._asked = asked
        self._read = read
        self._held = held
        self._said = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        with ROOM.holding(self._held) as held:
            answer = self._answer(await self._read())
            held.becomes(len(answer.body))
            await answer.send_all(send)

    def _answer(self, body: bytes) -> "Slowly":
        """Raises a Problem (416)."""
        asked = byte_range(self._asked, len(body), self._said["ETag"])
        if asked is None:
            return Slowly(body, 200, self._said)
        told = {**self._said, "Content-Range": f"bytes {asked[0]}-{asked[1] - 1}/{len(body)}"}
        return Slowly(body[asked[0] : asked[1]], 206, told)


class Slowly(Response):
    """Sent in pieces no faster than they are read, so that a slow reader holds the body once, and not in a buffer again."""

    async def send_all(self, send: Send) -> None:
        """The whole answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for start in range(0, len(body), CHUNK_BYTES):
            piece = bytes(body[start : start + CHUNK_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": start + CHUNK_BYTES < len(body)})
        if not body:
            await send({"type": "http.response.body", "body": b""})


def disposition(name: str) -> str:
    """`attachment` with a safe file name, in ASCII for everybody and in UTF-8 for those who know better (RFC 6266)."""
    safe = safe_name(name)
    plain = re.sub(r'["\\%]', "_", safe.encode("ascii", "replace").decode().replace("?", "_"))
    extended = "" if plain == safe else f"; filename*=UTF-8''{quote(safe, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def safe_name(name: str, most: int = NAME_CHARACTERS) -> str:
    """A file name without folders, control and direction characters, or devices; its extension is kept."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(c for c in last if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
    shown = re.sub(r'[<>:"|?*]', "_", shown).strip(" .")
    if not shown:
        return "attachment"
    if DEVICES.fullmatch(shown):
        shown = f"_{shown}"
    stem, dot, extension = shown.rpartition(".")
    if len(shown) > most and dot and stem and len(extension) <= 16:
        return f"{stem[: most - len(extension) - 1]}.{extension}"
    return shown[:most]
