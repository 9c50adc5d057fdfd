"""Attachments of a user: stored before a send names them, kept for as long as one does.

What no send has named ends when its time is over; its bytes are in a blob that was durable before the command. A send that
names an attachment has its bytes until the user is erased: deleting it then ends what can be listed and named again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from domain.fields import Digest, Sealed
from domain.users import User

#: Bytes of one attachment, and how many a send may have.
MOST_BYTES: Final = 5_000_000
MOST_OF_A_SEND: Final = 10

EndedBy = Literal["caller", "unused", "erasure"]


@dataclass(frozen=True, slots=True)
class StoreAttachment:
    account: str
    user: str
    attachment: str
    blob: str
    size: int
    sha256: str
    mime: str
    name: Sealed
    expires_at: datetime
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class UseAttachment:
    """A send names the attachment: from then on it has its bytes, and no time ends them."""

    account: str
    user: str
    attachment: str
    send: str


@dataclass(frozen=True, slots=True)
class DeleteAttachment:
    """Ends an attachment. `unused` is a timer's reminder, which counts only where its time is over and no send has it."""

    account: str
    user: str
    attachment: str
    by: EndedBy


AttachmentCommand = StoreAttachment | UseAttachment | DeleteAttachment


@dataclass(frozen=True, slots=True)
class AttachmentStored:
    account: str
    user: str
    attachment: str
    blob: str
    size: int
    sha256: str
    mime: str
    name: Sealed
    expires_at: datetime
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class AttachmentUsed:
    """A send has it: it is kept beyond its time."""

    account: str
    user: str
    attachment: str
    send: str


@dataclass(frozen=True, slots=True)
class AttachmentDeleted:
    """It is neither listed nor named any more. `blob` is to be destroyed, unless a send that was asked for before still names
    it; null where a send has the bytes already.
    """

    account: str
    user: str
    attachment: str
    by: EndedBy
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class AttachmentRefused:
    """Nothing changed. `of` is the attachment that the idempotency key stands for."""

    account: str
    user: str
    attachment: str
    command: Literal["StoreAttachment", "UseAttachment", "DeleteAttachment"]
    reason: Literal["unknown_account", "unknown_user", "unknown_attachment", "repeated", "idempotency_key_reused"]
    of: str | None = None


AttachmentEvent = AttachmentStored | AttachmentUsed | AttachmentDeleted | AttachmentRefused


@dataclass(frozen=True, slots=True)
class Attachment:
    blob: str
    expires_at: datetime
    used: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The attachment that an idempotency key stands for, and the digest of the request that stored it."""

    attachment: str
    request: Digest | None


Document = Attachment | Stored
Key = tuple[str, str]


def needs(command: AttachmentCommand) -> list[Key]:
    """The documents of attachments and users that a decision on this command reads."""
    keys = [("user", command.user), _attachment(command)]
    if isinstance(command, StoreAttachment) and command.idempotency_key:
        keys.append(_stored(command))
    return keys


def decide(documents: Mapping[Key, object | None], command: AttachmentCommand, now: datetime) -> list[AttachmentEvent]:
    """What follows from this command; whether there is such an account has been looked at."""
    user, found = documents.get(("user", command.user)), documents.get(_attachment(command))
    if isinstance(command, DeleteAttachment) and command.by == "unused":
        is_over = isinstance(found, Attachment) and not found.used and found.expires_at <= now
        return [_deleted(command, found)] if isinstance(found, Attachment) and is_over else []
    if not isinstance(user, User) or user.account != command.account:
        return [refused(command, "unknown_user")]
    if isinstance(command, StoreAttachment):
        return [_repeated(documents, command) or _as_stored(command)]
    if not isinstance(found, Attachment):
        return [refused(command, "unknown_attachment")]
    if isinstance(command, UseAttachment):
        return [AttachmentUsed(command.account, command.user, command.attachment, command.send)]
    return [_deleted(command, found)]


def refused(
    command: AttachmentCommand,
    reason: Literal["unknown_account", "unknown_user", "unknown_attachment", "repeated", "idempotency_key_reused"],
    of: str | None = None,
) -> AttachmentRefused:
    """That nothing changed, and why."""
    name: Literal["StoreAttachment", "UseAttachment", "DeleteAttachment"] = (
        "StoreAttachment"
        if isinstance(command, StoreAttachment)
        else "UseAttachment"
        if isinstance(command, UseAttachment)
        else "DeleteAttachment"
    )
    return AttachmentRefused(command.account, command.user, command.attachment, name, reason, of)


def _repeated(documents: Mapping[Key, object | None], command: StoreAttachment) -> AttachmentRefused | None:
    stored = documents.get(_stored(command)) if command.idempotency_key else None
    if isinstance(stored, Stored):
        same = stored.request == command.request
        return refused(command, "repeated" if same else "idempotency_key_reused", stored.attachment)
    if isinstance(documents.get(_attachment(command)), Attachment):
        return refused(command, "repeated", command.attachment)
    return None


def _as_stored(command: StoreAttachment) -> AttachmentStored:
    return AttachmentStored(
        command.account,
        command.user,
        command.attachment,
        command.blob,
        command.size,
        command.sha256,
        command.mime,
        command.name,
        command.expires_at,
        command.idempotency_key,
        command.request if command.idempotency_key else None,
    )


def _deleted(command: DeleteAttachment, found: Attachment) -> AttachmentDeleted:
    is_kept = found.used and command.by != "erasure"
    return AttachmentDeleted(
        command.account, command.user, command.attachment, command.by, None if is_kept else found.blob
    )


def touches(event: AttachmentEvent) -> list[Key]:
    """The documents that folding this event changes."""
    if isinstance(event, AttachmentRefused):
        return []
    keys = [_attachment(event)]
    if isinstance(event, AttachmentStored) and event.idempotency_key:
        keys.append(_stored(event))
    return keys


def evolve(documents: Mapping[Key, object | None], event: AttachmentEvent) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it."""
    match event:
        case AttachmentStored():
            changed: dict[Key, Document | None] = {_attachment(event): Attachment(event.blob, event.expires_at)}
            if event.idempotency_key:
                changed[_stored(event)] = Stored(event.attachment, event.request)
            return changed
        case AttachmentUsed():
            found = documents.get(_attachment(event))
            return {_attachment(event): replace(found, used=True)} if isinstance(found, Attachment) else {}
        case AttachmentDeleted():
            return {_attachment(event): None}
        case AttachmentRefused():
            return {}


def _attachment(said: AttachmentCommand | AttachmentStored | AttachmentUsed | AttachmentDeleted) -> Key:
    """Within its user, so that all are forgotten with the user."""
    return ("attachment", f"{said.user}/{said.attachment}")


def _stored(said: StoreAttachment | AttachmentStored) -> Key:
    return ("stored", f"{said.user}/{said.idempotency_key}")
