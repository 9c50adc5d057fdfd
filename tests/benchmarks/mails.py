"""The mails that are sent: the same bytes in every run, but for the three places that name one."""

import base64
import random
from dataclasses import dataclass
from email.utils import formatdate

WORDS = (
    "order",
    "invoice",
    "shipped",
    "account",
    "welcome",
    "code",
    "verify",
    "meeting",
    "report",
    "summary",
    "please",
)
HEAD = (
    b"From: Shop <shop@example.org>\r\nTo: you <you@example.com>\r\nDate: %b\r\n"
    b"Message-ID: <%b@bench.example>\r\nSubject: bench %b\r\nMIME-Version: 1.0\r\n"
)
LETTER_BYTES = 10 << 10


@dataclass(frozen=True)
class Mail:
    """A mail without a line that begins with a dot; `rest` is everything after the fields that differ."""

    rest: bytes

    def wire(self, token: str) -> bytes:
        """As it goes over the wire, the closing dot included."""
        name = token.encode()
        return HEAD % (formatdate().encode(), name, name) + self.rest + b".\r\n"

    @property
    def mebibytes(self) -> float:
        return len(self.wire("")) / 2**20


def letter() -> Mail:
    """10 KiB: text and HTML as alternatives."""
    return Mail(_letter())


def with_attachment(size: int) -> Mail:
    """That letter, and an attachment that brings it to about `size` bytes."""
    encoded = base64.encodebytes(random.Random(7).randbytes((size - LETTER_BYTES) * 57 // 78)).replace(b"\n", b"\r\n")
    return Mail(
        b'Content-Type: multipart/mixed; boundary="mix"\r\n\r\n--mix\r\n' + _letter() + b"\r\n--mix\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        b'Content-Disposition: attachment; filename="data.bin"\r\n\r\n' + encoded + b"--mix--\r\n"
    )


def token() -> str:
    """What a mail is known again by, in its subject."""
    return f"{random.getrandbits(80):020x}"


def _letter() -> bytes:
    chosen = random.Random(7)
    text = [" ".join(chosen.choices(WORDS, k=10)) for _ in range(40)]
    html = [" ".join(chosen.choices(WORDS, k=10)) + "<br>" for _ in range(90)]
    lines = [
        'Content-Type: multipart/alternative; boundary="alt"',
        *("", "--alt", "Content-Type: text/plain; charset=utf-8", "", "Your code is 481516.", *text),
        *("", "--alt", "Content-Type: text/html; charset=utf-8", ""),
        '<p>Your code is <b>481516</b>. <a href="https://example.org/confirm?t=abc">Confirm</a></p>',
        *html,
        *("--alt--", ""),
    ]
    return "\r\n".join(lines).encode()
