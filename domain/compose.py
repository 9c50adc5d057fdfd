"""An outgoing mail as bytes: RFC 5322 and MIME, with CRLF, lines within 78 characters but for one long word.

The same mail always gives the same bytes, so an attempt repeats the one before. Everything but the addresses of SMTPUTF8
is ASCII; bodies are quoted-printable or base64, whichever is shorter, so no bare CR or LF and no line of a body's own
making reaches the wire. Parts are put together here and not by the standard library's generator, which would split a mail
of 35 MB into half a million strings.
"""

import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC
from email.utils import format_datetime
from typing import Final

from domain.mail_wire_fields import (
    Unwritable,
    addresses_field,
    disposition,
    field,
    marker,
    media_type,
    message_id,
    own_field,
    text_field,
)
from domain.outgoing import MARKER, OutgoingFile, OutgoingMail

__all__ = ["Unwritable", "compose", "encoded_size", "needs_smtputf8"]

#: Bytes that one line of base64 holds, and its own length with the line end (RFC 2045, 6.8).
BASE64_BYTES: Final = 57
BASE64_LINE: Final = 78

_LINE_END = re.compile(r"\r\n|\r|\n")
_TRANSFER: Final = "Content-Transfer-Encoding"


def compose(mail: OutgoingMail, *, with_bcc: bool) -> bytes:
    """The whole mail. Raises Unwritable, a ValueError, where a name, an address or a value could become something else.

    `with_bcc`: for providers that read the recipients in the mail and take that field out.
    """
    hidden = addresses_field("Bcc", mail.bcc, "bcc")
    fields = [
        field("Date", _date(mail)),
        addresses_field("From", [mail.sender], "from"),
        addresses_field("Reply-To", mail.reply_to, "replyTo"),
        addresses_field("To", mail.to, "to"),
        addresses_field("Cc", mail.cc, "cc"),
        hidden if with_bcc else "",
        text_field("Subject", mail.subject, "subject"),
        field("Message-ID", message_id(mail.message_id, "messageId")),
        field(MARKER, marker(mail.marker)),
        *_own_fields(mail.headers),
        field("MIME-Version", "1.0"),
    ]
    return "".join(fields).encode("utf-8" if needs_smtputf8(mail) else "ascii") + _content(mail)


def needs_smtputf8(mail: OutgoingMail) -> bool:
    """Whether an address can be written in no other way than RFC 6531's: domains can, as A-labels."""
    mailboxes = [mail.sender, *mail.recipients, *mail.reply_to]
    return not all(one.address.rpartition("@")[0].isascii() for one in mailboxes)


def encoded_size(mail: OutgoingMail, files: Iterable[tuple[str, str, int]]) -> int:
    """Bytes that `compose` will give with these attachments (name, media type, bytes) in place of the mail's own.

    Exact, where identifiers and date are as long as those of the mail to come. Raises Unwritable.
    """
    planned = list(files)
    empty = [OutgoingFile(name, content_type, b"") for name, content_type, _ in planned]
    return len(compose(replace(mail, attachments=empty), with_bcc=True)) + sum(
        _base64_size(size) for *_, size in planned
    )


def _date(mail: OutgoingMail) -> str:
    if mail.date.tzinfo is None:
        raise Unwritable("date", "has no offset")
    return format_datetime(mail.date.astimezone(UTC))


def _own_fields(headers: dict[str, str]) -> list[str]:
    if len({name.lower() for name in headers}) < len(headers):
        raise Unwritable("headers", "has a name twice")
    return [own_field(name, value, f"headers/{number}") for number, (name, value) in enumerate(headers.items())]


def _content(mail: OutgoingMail) -> bytes:
    """From the first field about the content on."""
    content = _text_part("text/plain", mail.text, "text")
    if mail.html is not None:
        content = _multipart(mail, "alternative", [content, _text_part("text/html", mail.html, "html")])
    if mail.attachments:
        files = [_file_part(file, f"attachments/{number}") for number, file in enumerate(mail.attachments)]
        content = _multipart(mail, "mixed", [content, *files])
    return content


def _multipart(mail: OutgoingMail, kind: str, parts: list[bytes]) -> bytes:
    # "=_" is in nothing that is quoted-printable or base64 (RFC 2045, 6.7), so the boundary is in no part.
    boundary = "=_" + hashlib.sha256(f"{kind} {mail.message_id}".encode()).hexdigest()[:32]
    head = field("Content-Type", f'multipart/{kind};\r\n boundary="{boundary}"').encode("ascii")
    delimiter = f"\r\n--{boundary}".encode("ascii")
    return head + b"".join(piece for part in parts for piece in (delimiter, b"\r\n", part)) + delimiter + b"--\r\n"


def _text_part(content_type: str, text: str, where: str) -> bytes:
    try:
        plain = (_LINE_END.sub("\r\n", text).removesuffix("\r\n") + "\r\n").encode()
    except UnicodeEncodeError:
        raise Unwritable(where, "has half a character in it") from None
    quoted, encoded = binascii.b2a_qp(plain), _base64(plain)
    name, body = ("quoted-printable", quoted) if len(quoted) <= len(encoded) else ("base64", encoded)
    return _part(f"{content_type}; charset=utf-8", name, "", body)


def _file_part(file: OutgoingFile, where: str) -> bytes:
    content_type = media_type(file.content_type, f"{where}/contentType")
    named = field("Content-Disposition", disposition(file.name, f"{where}/name"))
    return _part(content_type, "base64", named, _base64(file.content))


def _part(content_type: str, encoding: str, more: str, body: bytes) -> bytes:
    head = field("Content-Type", content_type) + more + field(_TRANSFER, encoding)
    return b"".join([head.encode("ascii"), b"\r\n", body])


def _base64(content: bytes) -> bytes:
    encoded = binascii.b2a_base64(content, newline=False)
    width = BASE64_LINE - 2
    return b"".join(encoded[start : start + width] + b"\r\n" for start in range(0, len(encoded), width))


def _base64_size(size: int) -> int:
    return 4 * -(-size // 3) + 2 * -(-size // BASE64_BYTES)
