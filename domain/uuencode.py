"""Files uuencoded into the text of a mail, as mailers did before MIME and some archives still do."""

import re
from dataclasses import dataclass

from domain import transfer_encodings

_FILE = re.compile(
    rb"^begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n((?:[M-_][\x20-\x60]{1,120}+[ \t]*+\r?\n|[!-M][\x20-\x60]*+\r?\n)*+)"
    rb"(?:[` ]?[ \t]*+\r?\n)?end[ \t]*(?:\r?\n|\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A file found in a text: its name as bytes and its content."""

    name: bytes
    content: bytes


def cut_out(data: bytes) -> tuple[bytes, list[EncodedFile]]:
    """The text without the files between ``begin`` and ``end`` lines, and those files. A file cut short stays text."""
    if b"begin " not in data:
        return data, []
    files: list[EncodedFile] = []

    def keep(found: re.Match[bytes]) -> bytes:
        files.append(EncodedFile(found[1].strip(), transfer_encodings.uuencoded(found[2])))
        return b""

    return _FILE.sub(keep, data), files
