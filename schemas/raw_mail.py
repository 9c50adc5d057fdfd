"""The records of `mail.raw`: the sealed mail is the value, everything else stands in the headers (DESIGN 3.1)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from domain.fields import Digest, Sealed
from domain.mailbox_commands import ReceiveMail
from domain.mailbox_events import Via
from schemas.envelope import Headers, Record, command_headers
from schemas.vocabulary import encode, wire_type

#: Bytes of a mail from which it goes to the blob store, and its record holds only the reference.
INLINE_BYTES: Final = 262_144
KIND: Final = wire_type("mailbox", ReceiveMail)


@dataclass(frozen=True, slots=True)
class RawMail:
    """One accepted recipient of one mail. `size` in bytes and `sha256` in hex of the mail before sealing."""

    message: str
    mailbox: str
    via: Via
    size: int
    sha256: str
    envelope: Sealed
    message_id_digest: Digest | None = None
    blob: str | None = None


_READER: Final = TypeAdapter(RawMail)


def headers_of(mail: RawMail, *, at: datetime, not_after: datetime, trace: dict[str, str] | None = None) -> Headers:
    """The record's headers; the message's id is the command's."""
    headers = command_headers(
        command_id=mail.message,
        kind=KIND,
        subject=mail.mailbox,
        at=at,
        not_after=not_after,
        content_type=b"application/octet-stream",
        trace=trace,
    )
    return [*headers, ("mail", encode(mail))]


def read(record: Record) -> RawMail:
    """What the headers of a record say; raises ValueError."""
    for name, value in record.headers:
        if name == "mail":
            return _READER.validate_json(value)
    raise ValueError("no header says what mail this is")
