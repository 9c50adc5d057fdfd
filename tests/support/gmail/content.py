"""How a mail comes in: base64url in JSON, or as it is by one of three kinds of upload."""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.support.gmail.errors import Refused

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
#: Chunks of an upload in pieces are multiples of this, but for the last.
CHUNK = 256 * 1024
NO_MAIL = "'raw' RFC822 payload message string or uploading message via /upload/* URL required"


@dataclass
class Content:
    """What a request says, and the mail that came with it, if one did."""

    words: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass
class Upload:
    """An upload in pieces. `answered` is what was said at its end, and is said again to whoever asks."""

    method: str
    user: str
    place: dict[str, str]
    content: Content
    kind: str
    received: bytearray = field(default_factory=bytearray)
    answered: Any = None

    def take(self, header: str, chunk: bytes, most: int) -> bool:
        """Whether this was the last of it."""
        found = _RANGE.fullmatch(header)
        if not found:
            raise Refused("badRequest", "Failed to parse Content-Range header.")
        first, last, total = found.groups()
        if first is None:
            return total != "*" and int(total) == len(self.received)
        if int(last) - int(first) + 1 != len(chunk):
            raise Refused("badRequest", "Invalid request.  The number of bytes uploaded is required to be equal or"
                          " greater than the Content-Range.")  # fmt: skip
        final = total != "*" and int(last) + 1 == int(total)
        if not final and len(chunk) % CHUNK:
            raise Refused("badRequest", f"Invalid request. The chunk is no multiple of {CHUNK} bytes.")
        if int(first) <= len(self.received) <= int(last):
            self.received += chunk[len(self.received) - int(first) :]
        if len(self.received) > most or (total != "*" and int(total) > most):
            raise Refused("uploadTooLarge")
        return final and len(self.received) == int(total)


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def in_json(body: bytes, within: str | None) -> Content:
    """Of a request in JSON: a message, or a draft that has one (`within` it)."""
    words = _words(body)
    message = words.get(within, {}) if within else words
    if not isinstance(message, dict):
        raise Refused(
            "invalidArgument", f"Invalid value at '{within}' (type.googleapis.com/gmail.Message), {message!r}"
        )
    raw = message.get("raw")
    if raw is None or raw == "":
        return Content(words)
    where = f"{within}.raw" if within else "raw"
    if not isinstance(raw, str):
        raise Refused("invalidArgument", f"Invalid value at '{where}' (TYPE_BYTES), {raw!r}")
    text = raw.rstrip("=")
    if not _BASE64URL.fullmatch(raw) or len(text) % 4 == 1 or (raw != text and len(raw) % 4):
        problem = f"Invalid value at '{where}' (TYPE_BYTES), Base64 decoding failed for \"{raw[:100]}\""
        raise Refused("invalidArgument", problem)
    return Content(words, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def in_one(kind: str, body: bytes, content_type: str) -> Content:
    """Of an upload in one piece: a mail as it is, or after what there is to say about it."""
    if kind == "media":
        _of_mail(content_type)
        return Content({}, body)
    found = re.fullmatch(r'multipart/related;.*boundary="?([^";]+)"?.*', content_type, re.IGNORECASE | re.DOTALL)
    if not found:
        raise Refused(
            "badRequest", f"Media type '{content_type}' is not supported. Valid media types: [multipart/related]"
        )
    mark = b"--" + found[1].encode()
    pieces = re.split(rb"(?:\A|\r?\n)" + re.escape(mark) + rb"(?:--)?[ \t]*(?:\r?\n|\Z)", body)
    if len(pieces) < 4 or not re.search(re.escape(mark) + rb"--\s*\Z", body):
        raise Refused("badRequest", "Malformed multipart body.")
    (_, about), (head, mail) = (_piece(piece) for piece in pieces[1:3])
    of_mail = re.search(r"^content-type:\s*(.+?)\s*$", head, re.IGNORECASE | re.MULTILINE)
    _of_mail(of_mail[1] if of_mail else "")
    if re.search(r"^content-transfer-encoding:\s*base64", head, re.IGNORECASE | re.MULTILINE):
        mail = base64.b64decode(mail)
    return Content(_words(about), mail)


def about_upload(body: bytes, content_type: str | None) -> Content:
    """Of the request that begins an upload in pieces; `content_type` is that of what is to come."""
    if content_type:
        _of_mail(content_type)
    return Content(_words(body))


def _piece(piece: bytes) -> tuple[str, bytes]:
    found = re.search(rb"(?:\A|\r?\n)\r?\n", piece)
    if not found:
        raise Refused("badRequest", "Malformed multipart body.")
    return piece[: found.start()].decode(errors="replace"), piece[found.end() :]


def _of_mail(content_type: str) -> None:
    if content_type.partition(";")[0].strip().lower() != "message/rfc822":
        raise Refused("badRequest", f"Media type '{content_type}' is not supported. Valid media types: [message/*]")


def _words(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        words = json.loads(body)
    except ValueError as error:
        raise Refused("badRequest", "Invalid JSON payload received. Unexpected token.") from error
    if not isinstance(words, dict):
        raise Refused("badRequest", "Invalid JSON payload received. Unknown name.")
    return words
