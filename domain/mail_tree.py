"""The tree of a mail, from the standard library's parser with answers of our own to the questions it asks.

``email`` in its compat32 policy is right about lines, boundaries and nesting. While it reads it asks each part for its
type and its boundary; `Part` answers from our own tolerant reading of the fields, keeps the fields itself, and says
of a ``message/*`` part that it is a leaf, so that a forwarded mail stays the bytes it was. Bounds are checked as the
tree grows, so a mail beyond one costs no more than one within.
"""

from collections.abc import Mapping
from email.feedparser import FeedParser
from email.message import Message
from functools import cached_property

from domain import charsets, mail_long_runs, transfer_encodings
from domain.mail_header_block import readable
from domain.mail_parameters import Structured, media_type, structured

MAX_DEPTH = 50
MAX_PARTS = 1_000
MAX_HEADER_BYTES = 256 * 1024
MAX_BOUNDARY = 256
_BLOCK = 64 * 1024


class Unparsable(Exception):
    """A mail beyond a bound; *reason* is one of depth, parts, headers, boundary, malformed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Part(Message):
    """One node of a mail: the whole, a multipart or a leaf. Fields are kept raw, 8-bit bytes as surrogates."""

    _payload: "list[Part] | str | None"  # the parser writes it; get_payload() would decode it in its own way

    def __init__(self, policy: object = None) -> None:  # noqa: ARG002  # the parser hands it over; compat32 is the default
        super().__init__()
        self._values: dict[str, list[str]] = {}
        self._header_size = 0
        self.depth = 0
        self.count_of_parts = [1]
        self.charset_around: str | None = None
        self.runs: list[bytes] = []

    # What the standard library's parser tells and asks while it reads.

    def set_raw(self, name: str, value: str) -> None:
        """Called for every field, in order."""
        self._header_size += len(name) + len(value) + 3
        if self._header_size > MAX_HEADER_BYTES:
            raise Unparsable("headers")
        self._values.setdefault(name.lower(), []).append(value)

    def __len__(self) -> int:
        """Never 0: the parser takes a part of no length for none at all."""
        return len(self._values) + 1

    def attach(self, part: "Part") -> None:  # type: ignore[override]  # the parser attaches nothing but its own parts
        """Called for every child, before it is read."""
        part.depth, part.count_of_parts, part.charset_around = self.depth + 1, self.count_of_parts, self.charset
        part.runs = self.runs
        self.count_of_parts[0] += 1
        if part.depth > MAX_DEPTH:
            raise Unparsable("depth")
        if self.count_of_parts[0] > MAX_PARTS:
            raise Unparsable("parts")
        super().attach(part)

    def get_content_type(self) -> str:
        """multipart/digest tells the parser its children's default; everything else it need not know."""
        return self.content_type if self.content_type.startswith("multipart/") else "text/plain"

    def get_content_maintype(self) -> str:
        """Only a multipart is read further: message/* is a leaf."""
        return "multipart" if self.content_type.startswith("multipart/") else "text"

    def get_boundary(self, failobj: object = None) -> str | None:  # type: ignore[override]  # noqa: ARG002  # never given one
        """The boundary, exactly as it will stand in the body."""
        boundary = self._type.parameters.get("boundary", "")
        if len(boundary) > MAX_BOUNDARY:
            raise Unparsable("boundary")
        return boundary.rstrip() or None

    # What we ask afterwards.

    def field(self, name: str) -> str:
        """The first field of that lower-case name, raw, or an empty string."""
        return self._values[name][0] if name in self._values else ""

    @property
    def all_fields(self) -> Mapping[str, list[str]]:
        """Every field's raw values in order, by lower-case name."""
        return self._values

    @cached_property
    def _type(self) -> Structured:
        return structured(self.field("content-type"))

    @cached_property
    def content_type(self) -> str:
        """type/subtype in lower case; RFC 2045's default where there is none."""
        return media_type(self._type.value, self.get_default_type())

    @cached_property
    def disposition(self) -> Structured:
        """Content-Disposition (RFC 2183)."""
        return structured(self.field("content-disposition"))

    @property
    def charset(self) -> str | None:
        """The label of the text's charset, unverified: the part's own, else that of a multipart around it."""
        return self._type.parameters.get("charset") or self.charset_around

    def parameter(self, name: str) -> str:
        """A parameter of Content-Type, decoded, or an empty string."""
        return self._type.parameters.get(name, "")

    @property
    def filename(self) -> str:
        """The name given to the part, decoded, or an empty string: Content-Disposition's before Content-Type's."""
        return self.disposition.parameters.get("filename") or self.parameter("name")

    @property
    def parts(self) -> list["Part"]:
        """The children, none for a leaf and for a multipart whose boundary never came."""
        return self._payload if isinstance(self._payload, list) else []

    @property
    def encoding(self) -> str:
        """The name of the transfer encoding, lower case."""
        return transfer_encodings.encoding_named(self.field("content-transfer-encoding"))

    @property
    def content(self) -> bytes:
        """The decoded bytes of a leaf."""
        if not isinstance(self._payload, str):
            return b""
        body = mail_long_runs.put_back(charsets.raw_bytes(self._payload), self.runs)
        return transfer_encodings.decode(body, self.encoding)


def read_tree(raw: bytes) -> Part:
    """The tree of a mail given as bytes. Raises `Unparsable` beyond a bound, and nothing else."""
    raw, header_length = readable(raw)
    if header_length > MAX_HEADER_BYTES:
        raise Unparsable("headers")
    short, runs = mail_long_runs.cut_out(raw)
    parser = FeedParser(Part)
    text = short.decode("ascii", "surrogateescape")
    try:
        for at in range(0, len(text), _BLOCK):
            parser.feed(text[at : at + _BLOCK])
        root = parser.close()
    except (AssertionError, ValueError, IndexError, AttributeError, TypeError, RecursionError) as error:
        raise Unparsable("malformed") from error
    root.runs += runs  # one list, shared by all its parts
    return root
