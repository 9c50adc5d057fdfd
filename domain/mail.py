"""A mail as its reader sees it: bytes in, `Mail` out.

Any bytes are a mail. What breaks a rule is read as mail clients read it; only a mail beyond a bound is refused, with
`Unparsable`, which is all that ever leaves here. Text is text: no U+0000 and no lone surrogate in any field, so JSON,
PostgreSQL and every browser can hold it. The cost grows with the length of the mail, whatever is in it.
"""

import hashlib
import re
from dataclasses import dataclass

from domain import charsets, encoded_words
from domain.mail_addresses import Address, addresses
from domain.mail_bodies import File, sort_leaves
from domain.mail_tree import MAX_HEADER_BYTES, Part, Unparsable, read_tree

__all__ = ["Attachment", "Mail", "Unparsable", "attachment_bytes", "message_id", "parse"]

_EMPTY_LINE = re.compile(rb"(?>\r\n|\r|\n)(?=[\r\n])")
_MESSAGE_ID = re.compile(rb"(?i)(?:\A|(?<=[\r\n]))message-id[ \t]*+:((?:[^\r\n]++|(?>\r\n|\r|\n)[ \t])*+)")


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment: its *index* from 0 in the order of the mail, *size* in decoded bytes, *sha256* of them in hex.

    *filename* is what the sender wrote, without control characters, and "attachment" where he wrote nothing: it may
    hold slashes and dots and is never a path.
    """

    index: int
    filename: str
    content_type: str
    size: int
    content_id: str | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A parsed mail. *headers* maps lower-case names to their decoded values, in order; lists are of bare addresses."""

    subject: str | None
    from_address: str | None
    from_name: str | None
    to: tuple[str, ...]
    cc: tuple[str, ...]
    reply_to: tuple[str, ...]
    message_id: str | None
    text: str | None
    html: str | None
    headers: dict[str, list[str]]
    attachments: tuple[Attachment, ...]


def parse(raw: bytes) -> Mail:
    """Read a mail of RFC 5322 and MIME. Raises `Unparsable` for one beyond the bounds of `domain.mail_tree`."""
    root = read_tree(raw)
    headers = _headers(root)
    sender = next(iter(_addresses(root, "from")), None)
    bodies = sort_leaves(root)
    return Mail(
        subject=next(iter(headers.get("subject", ())), None),
        from_address=sender.address if sender else None,
        from_name=sender.name or None if sender else None,
        to=_bare(root, "to"),
        cc=_bare(root, "cc"),
        reply_to=_bare(root, "reply-to"),
        message_id=next(iter(headers.get("message-id", ())), None) or None,
        text="\n".join(bodies.texts) if bodies.texts else None,
        html="\n".join(bodies.htmls) if bodies.htmls else None,
        headers=headers,
        attachments=tuple(_attachment(index, file) for index, file in enumerate(bodies.files)),
    )


def message_id(raw: bytes) -> str | None:
    """The Message-ID that `parse` would find, from the header alone and whatever the rest is. Never raises."""
    end = _EMPTY_LINE.search(raw, 0, MAX_HEADER_BYTES)
    found = _MESSAGE_ID.search(raw, 0, end.end() if end else MAX_HEADER_BYTES)
    return encoded_words.decode(found[1].decode("ascii", "surrogateescape")) or None if found else None


def attachment_bytes(raw: bytes, index: int) -> bytes:
    """The decoded bytes of the attachment that `parse` gave that index. Raises IndexError and `Unparsable`."""
    if index < 0:
        raise IndexError(index)
    return sort_leaves(read_tree(raw)).files[index].content


def _headers(root: Part) -> dict[str, list[str]]:
    return {
        charsets.clean(name): [encoded_words.decode(one) for one in values] for name, values in root.all_fields.items()
    }


def _addresses(root: Part, name: str) -> list[Address]:
    return [address for value in root.all_fields.get(name, ()) for address in addresses(value)]


def _bare(root: Part, name: str) -> tuple[str, ...]:
    return tuple(address.address for address in _addresses(root, name))


def _attachment(index: int, file: File) -> Attachment:
    digest = hashlib.sha256(file.content).hexdigest()
    return Attachment(index, file.name or "attachment", file.content_type, len(file.content), file.content_id, digest)
