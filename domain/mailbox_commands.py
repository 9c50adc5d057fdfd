"""What can be asked of a mailbox, by HTTP, SMTP, SES, timers and our own effects."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.fields import Digest, Sealed
from domain.mailbox_events import MessageState, RawPlace, Via
from domain.plans import Plan


@dataclass(frozen=True, slots=True)
class CreateMailbox:
    mailbox: str
    owner: str
    address_digest: Digest
    address: Sealed
    plan: Plan
    ttl_minutes: int | None = None
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class ExtendMailbox:
    mailbox: str
    ttl_minutes: int


@dataclass(frozen=True, slots=True)
class DeleteMailbox:
    mailbox: str
    by: str


@dataclass(frozen=True, slots=True)
class ExpireMailbox:
    mailbox: str
    due: datetime


@dataclass(frozen=True, slots=True)
class PurgeMailbox:
    mailbox: str


@dataclass(frozen=True, slots=True)
class ReceiveMail:
    """A record of `mail.raw`, parsed as far as there was time. `erased`: its mailbox's data key is gone."""

    message: str
    mailbox: str
    owner: str
    via: Via
    size: int
    sha256: str
    envelope: Sealed
    raw: RawPlace
    state: MessageState | Literal["erased"]
    message_id_digest: Digest | None = None
    summary: Sealed | None = None
    content: Sealed | None = None
    content_blob: str | None = None
    has_attachments: bool = False
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ReportParsed:
    mailbox: str
    message: str
    state: Literal["whole", "unparsed"]
    summary: Sealed | None = None
    content: Sealed | None = None
    content_blob: str | None = None
    has_attachments: bool = False
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ReadMessage:
    mailbox: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    mailbox: str
    message: str
    by: str


MailboxCommand = (
    CreateMailbox
    | ExtendMailbox
    | DeleteMailbox
    | ExpireMailbox
    | PurgeMailbox
    | ReceiveMail
    | ReportParsed
    | ReadMessage
    | DeleteMessage
)
