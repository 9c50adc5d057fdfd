"""What can happen to a mailbox and to its messages: the facts that `mailbox.events` keeps for ever.

`Sealed` fields are ciphertext under the mailbox's data key, `Digest` fields are HMACs under an installation key.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.fields import Digest, Sealed
from domain.plans import Limits

MessageState = Literal["whole", "parsing", "unparsed"]
Via = Literal["smtp", "ses"]
RejectReason = Literal["expired", "full", "deleted", "erased", "repeated", "unknown"]
RefuseReason = Literal["unknown", "ended", "already", "not_the_owner"]


@dataclass(frozen=True, slots=True)
class RawPlace:
    """Where the mail as it came can be read: a record of `mail.raw`, and the blob it points to where there is one."""

    partition: int
    offset: int
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class MailboxCreated:
    mailbox: str
    owner: str
    address_digest: Digest
    address: Sealed
    created_at: datetime
    expires_at: datetime
    plan: str
    plan_position: int | None
    limits: Limits
    token_version: int
    request: Digest | None = None
    idempotency_key: Digest | None = None


@dataclass(frozen=True, slots=True)
class MailboxRefused:
    """No mailbox was made. `repeated`: the same idempotency key stands for the mailbox named in `of`."""

    mailbox: str
    owner: str
    reason: Literal["plan_limit_mailboxes", "address_taken", "repeated", "idempotency_key_reused"]
    limit: int | None = None
    used: int | None = None
    of: str | None = None


@dataclass(frozen=True, slots=True)
class MailboxExtended:
    mailbox: str
    owner: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class MailboxDeleted:
    mailbox: str
    owner: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class MailboxExpired:
    mailbox: str
    owner: str
    at: datetime


@dataclass(frozen=True, slots=True)
class MailboxPurged:
    """Its data key and blobs were destroyed before this was said: its events stay, unreadable."""

    mailbox: str
    owner: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A mail was accepted. `number` counts a mailbox's mails from 1; `size` (bytes) and `sha256` are the raw mail's."""

    message: str
    mailbox: str
    owner: str
    number: int
    received_at: datetime
    size: int
    sha256: str
    via: Via
    envelope: Sealed
    state: MessageState
    raw: RawPlace
    summary: Sealed | None = None
    content: Sealed | None = None
    content_blob: str | None = None
    has_attachments: bool = False
    cause: str | None = None
    message_id_digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class MessageRejected:
    """A mail that was taken at the door found no room: the sender heard `250`, the reader never sees it."""

    message: str
    mailbox: str
    owner: str
    reason: RejectReason
    size: int
    sha256: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class MessageParsed:
    message: str
    mailbox: str
    owner: str
    state: Literal["whole", "unparsed"]
    summary: Sealed | None = None
    content: Sealed | None = None
    content_blob: str | None = None
    has_attachments: bool = False
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRead:
    message: str
    mailbox: str
    owner: str


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    message: str
    mailbox: str
    owner: str
    by: str


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """A command that could not be carried out as things stood; nothing changed."""

    command: Literal["ExtendMailbox", "DeleteMailbox", "ReadMessage", "DeleteMessage"]
    reason: RefuseReason
    mailbox: str
    message: str | None = None


MailboxEvent = (
    MailboxCreated
    | MailboxRefused
    | MailboxExtended
    | MailboxDeleted
    | MailboxExpired
    | MailboxPurged
    | MessageReceived
    | MessageRejected
    | MessageParsed
    | MessageRead
    | MessageDeleted
    | CommandRefused
)
