"""What an uploaded file is: told by its bytes, and by its sender only where they leave it open.

Who declares a type wants it to be believed, and a mail client will. So a picture is one only where its bytes say so, and
what a browser would run is named as such only where the bytes agree. The rules follow the WHATWG's for sniffing: text is
what holds no control characters, and is `text/plain` unless it is declared to be a kind of text that does nothing.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Final

import puremagic

from gateways.http.downloads import BYTES_TYPE

#: Bytes of the beginning that signatures are looked for in.
HEAD_BYTES: Final = 8_192
#: Bytes below which a signature tells something only where the declared type or the file's name says the same; and so does
#: one that is shorter than another that fits as well.
TELLING_BYTES: Final = 3
#: Control characters that no text has; tab, line feed, vertical tab, form feed, carriage return and escape may be in one.
BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
#: Formats that may be written in text alone and are none.
LIKE_TEXT: Final = ("application/pdf", "application/rtf", "application/postscript")
HARMLESS_TEXTS: Final = frozenset(
    {
        "text/plain",
        "text/csv",
        "text/tab-separated-values",
        "text/calendar",
        "text/vcard",
        "text/markdown",
        "application/json",
        "application/x-ndjson",
    }
)
#: What has no signature and runs nowhere; a type with a signature is not believed without it.
HARMLESS_BYTES: Final = re.compile(r"application/(?!.*(html|xml|script|flash|java|pdf|zip|hta|msdownload))[a-z0-9.+-]+")
#: Types that are a part of how a mail is built.
STRUCTURE: Final = re.compile(r"(message|multipart)/.*")
CHARSET: Final = re.compile(
    r"iso-8859-[0-9]{1,2}|windows-125[0-8]|koi8-[ru]|gb18030|gbk|gb2312|big5|shift_jis|euc-(jp|kr)|iso-2022-jp"
)
TYPE: Final = re.compile(
    r"\s*([a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64})\s*(?:;.*?charset=\"?([a-z0-9._-]+))?.*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Signature:
    mime: str
    extension: str
    telling: bool


class Looked:
    """What is seen of a file while its bytes go by."""

    def __init__(self) -> None:
        self.head = b""
        self.is_text = True
        self.is_utf8 = True
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def at(self, block: bytes) -> None:
        """The next bytes."""
        if len(self.head) < HEAD_BYTES:
            self.head += block[: HEAD_BYTES - len(self.head)]
        self.is_text = self.is_text and not BINARY.search(block)
        self._decode(block, final=False)

    def media_type(self, name: str, declared: str) -> str:
        """The media type of the whole, once all bytes went by; with its charset where it is text of a known one."""
        self._decode(b"", final=True)
        said = TYPE.fullmatch(declared.lower())
        kind, charset = (said[1], said[2] or "") if said else ("", "")
        if STRUCTURE.fullmatch(kind):
            kind = ""
        found = _signatures(self.head)
        if self.is_text and (self.is_utf8 or CHARSET.fullmatch(charset)):
            return _text(found, kind, "utf-8" if self.is_utf8 else charset)
        return _bytes(found, kind, name)

    def _decode(self, block: bytes, *, final: bool) -> None:
        if self.is_text and self.is_utf8:
            try:
                self._decoder.decode(block, final)
            except UnicodeDecodeError:
                self.is_utf8 = False


def _text(found: list[Signature], kind: str, charset: str) -> str:
    for other in LIKE_TEXT:
        if any(each.mime == other and each.telling for each in found):
            return other
    is_believed = kind in HARMLESS_TEXTS or kind in {each.mime for each in found}
    kind = kind if is_believed else "text/plain"
    return f"{kind}; charset={charset}" if kind.startswith("text/") else kind


def _bytes(found: list[Signature], kind: str, name: str) -> str:
    kinds = [each.mime for each in found if each.telling]
    if kind in {each.mime for each in found}:
        return kind
    for each in found:
        if name.lower().endswith(each.extension):
            return each.mime
    if kinds:
        # Many formats are archives inside: which one is not told by how they begin.
        return "application/zip" if "application/zip" in kinds else kinds[0]
    return kind if HARMLESS_BYTES.fullmatch(kind) else BYTES_TYPE


def _signatures(head: bytes) -> list[Signature]:
    """The types whose signature the beginning bears, the likeliest first."""
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return []
    telling = max(TELLING_BYTES, *(len(each.byte_match) for each in found))
    return [
        Signature(each.mime_type.lower(), each.extension, len(each.byte_match) >= telling)
        for each in found
        if each.mime_type and each.extension
    ]
