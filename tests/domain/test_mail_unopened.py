"""Archives and pictures are handed out as they came and never opened, so nothing in them can grow or run."""

import io
import zipfile
import zlib
from base64 import b64encode

import pytest

from domain.mail import attachment_bytes, parse


def mail_with(name: str, content_type: str, content: bytes) -> bytes:
    head = f'From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: {content_type}; name="{name}"\r\n'
    encoded = f'Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename="{name}"\r\n\r\n'
    return (head + encoded).encode() + b64encode(content)


def bomb(times: int) -> bytes:
    """A ZIP file of a hundred kibibytes that holds a thousand times as much."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (times * 100 * 1024))
    return packed.getvalue()


def picture(side: int) -> bytes:
    """The head of a PNG that says it is so many pixels wide and high."""
    head = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + len(head).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("name", "content_type", "content"),
    [
        ("bomb.zip", "application/zip", bomb(1000)),
        ("nested.zip", "application/zip", bomb(10) + bomb(10)),
        ("many.zip", "application/zip", b"PK\x05\x06" + b"\0" * 4 + b"\xff\xff\xff\xff" + b"\xff" * 8 + b"\0\0"),
        ("huge.png", "image/png", picture(50_000)),
        ("winmail.dat", "application/ms-tnef", b"\x78\x9f\x3e\x22" + b"\0\x01" * 5000),
    ],
)
def test_an_attachment_is_what_was_sent_and_nothing_that_is_in_it(name: str, content_type: str, content: bytes) -> None:
    raw = mail_with(name, content_type, content)
    (found,) = parse(raw).attachments
    assert (found.filename, found.content_type, found.size) == (name, content_type, len(content))
    assert attachment_bytes(raw, 0) == content
