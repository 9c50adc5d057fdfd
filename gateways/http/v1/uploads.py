"""Taking one file down out of a form (multipart/form-data, RFC 7578), block by block, in flat memory.

A file of more bytes than may be is refused at the first byte too many, and the rest is not read.
"""

import re
from collections.abc import AsyncIterator
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from domain.attachments import MOST_BYTES
from gateways.http.downloads import safe_name
from gateways.http.edge import Bound
from gateways.http.problems import Problem
from gateways.http.v1.attachment_types import Looked
from gateways.http.v1.bodies import Faults, pointer

FIELD: Final = "file"
#: Bytes of a form beside its file: its boundaries, and the head of its one part.
FORM_BYTES: Final = 65_536
#: Seconds for a form to arrive.
SECONDS: Final = 120.0
#: Bytes of a file's name, as most file systems have it.
NAME_BYTES: Final = 255
#: Bytes of a file that stay in memory; what is longer goes to a file without a name.
IN_MEMORY: Final = 262_144
#: Parts of a form after which the rest is not read.
MOST_PARTS: Final = 20
#: A name in the extended form, which some clients write against RFC 7578 4.2, and others in place of the plain one.
EXTENDED_NAME: Final = re.compile(r";\s*filename\*\s*=\s*\"?(utf-8|iso-8859-1)'[^']*'([^;\"\s]*)", re.IGNORECASE)
EXPECTED: Final = "Send the file as the field `file` of a form, `Content-Type: multipart/form-data; boundary=…`."
BROKEN: Final = (
    "The body is no whole form: it breaks the rules of multipart/form-data, or ends before its last boundary."
)


def too_large() -> Problem:
    return Problem("attachment_too_large", f"A file may have {MOST_BYTES:,} bytes.")


BOUND: Final = Bound(MOST_BYTES + FORM_BYTES, SECONDS, too_large)


class Upload:
    """A form's file as it comes: a context manager that takes it down with `read`, and forgets it at the end."""

    def __init__(self) -> None:
        self.size = 0
        self.name = ""
        self.sha256 = ""
        self.media_type = ""
        self._declared = ""
        self._looked = Looked()
        self._digest = sha256()
        self._parts: list[str] = []
        self._header = self._value = b""
        self._headers: dict[str, str] = {}
        self._ended = False
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - it outlives this line on purpose and is closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    @property
    def file(self) -> BinaryIO:
        """The bytes, from their beginning."""
        self._file.seek(0)
        return cast("BinaryIO", self._file)  # a spooled file does all that a BinaryIO does, but isn't declared as one

    async def read(self, request: Request, faults: Faults) -> None:
        """Takes the request's form down; what is wrong with it is added to the faults. Raises a Problem (408, 413)."""
        boundary = _boundary(request.headers.get("content-type", ""))
        if not boundary:
            faults.add("/headers/Content-Type", EXPECTED)
            return
        callbacks: Any = {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._form_ends,
        }
        try:
            parser = MultipartParser(boundary, callbacks)
            async for block in _blocks(request):
                if not self._ended:
                    parser.write(block)
                if len(self._parts) > MOST_PARTS:
                    break
        except FormParserError:
            faults.add("", BROKEN)
            return
        self._check(faults)

    def _check(self, faults: Faults) -> None:
        others = [name for name in dict.fromkeys(self._parts) if name != FIELD]
        for name in others:
            faults.add(pointer(name[:100]), "There is no such field: the form takes `file`.")
        if not self._ended and len(self._parts) <= MOST_PARTS:
            faults.add("", BROKEN)
        elif self._parts.count(FIELD) != 1:
            is_missing = FIELD not in self._parts
            faults.add("/file", f"`file` is missing: {EXPECTED}" if is_missing else "`file` is there twice.")
        self.sha256 = self._digest.hexdigest()
        self.media_type = self._looked.media_type(self.name, self._declared)

    # ── what the parser finds ─────────────────────────────────────────────────────────────────────────────────────────

    def _part_begins(self) -> None:
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._header = self._value = b""

    def _headers_end(self) -> None:
        said = self._headers.get("content-disposition", "")
        _, options = parse_options_header(said)
        self._parts.append(_text(options.get(b"name", b"")))
        if self._is_file:
            self.name = attachment_name(_extended_name(said) or _text(options.get(b"filename", b"")))
            self._declared = self._headers.get("content-type", "")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            return
        self.size += end - start
        if self.size > MOST_BYTES:
            raise too_large()
        block = data[start:end]
        self._digest.update(block)
        self._looked.at(block)
        self._file.write(block)

    def _form_ends(self) -> None:
        self._ended = True

    @property
    def _is_file(self) -> bool:
        """Whether this is the first part of that name: a second one is a fault anyway."""
        return self._parts[-1] == FIELD and self._parts.count(FIELD) == 1


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """Raises a Problem (400) where the caller has gone."""
    try:
        async for block in request.stream():
            yield block
    except ClientDisconnect as error:
        raise Problem("bad_request", "The body was cut off.") from error


def attachment_name(said: str) -> str:
    """A name that is safe on every system and in every header, of at most 255 bytes; its extension is kept."""
    name = safe_name(said, NAME_BYTES)
    if len(name.encode()) <= NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    ending = f".{extension}" if dot and stem and len(extension.encode()) <= 32 else ""
    room = NAME_BYTES - len(ending.encode())
    cut = name[: len(name) - len(ending)].encode()[:room].decode("utf-8", "ignore")
    return f"{cut}{ending}"


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""


def _extended_name(disposition: str) -> str:
    found = EXTENDED_NAME.search(disposition)
    return unquote_to_bytes(found[2]).decode(found[1], "replace") if found else ""


def _text(said: bytes) -> str:
    try:
        return said.decode()
    except UnicodeDecodeError:
        return said.decode("latin-1")
