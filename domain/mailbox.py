"""The rules of a temporary inbox: who may open one, what it takes in, and when it ends.

`decide(documents, command, now)` answers with events; a decision names the documents it reads (`needs`). How events
change them is in `mailbox_state.py`.
Whether a mailbox has expired is a matter of comparing times, here and everywhere: the event only makes it public.
"""

from datetime import datetime, timedelta
from typing import Literal, assert_never

from domain.mailbox_commands import (
    CreateMailbox,
    DeleteMailbox,
    DeleteMessage,
    ExpireMailbox,
    ExtendMailbox,
    MailboxCommand,
    PurgeMailbox,
    ReadMessage,
    ReceiveMail,
    ReportParsed,
)
from domain.mailbox_events import (
    CommandRefused,
    MailboxCreated,
    MailboxDeleted,
    MailboxEvent,
    MailboxExpired,
    MailboxExtended,
    MailboxPurged,
    MailboxRefused,
    MessageDeleted,
    MessageParsed,
    MessageRead,
    MessageReceived,
    MessageRejected,
    RejectReason,
)
from domain.mailbox_state import (
    Document,
    Documents,
    Key,
    Mailbox,
    Message,
    Owner,
    Repeat,
    Request,
    repeat_keys,
    request_id,
    within,
)
from domain.plans import LONGEST_LIFETIME_MINUTES, granted_minutes

#: The same mail again (same mailbox, sender, Message-ID and bytes) within this time is received once.
REPEAT_WINDOW = timedelta(hours=24)


def needs(command: MailboxCommand, owner: str) -> list[Key]:
    """The documents a decision on this command reads, or that its events change; `owner` is the key of its record."""
    match command:
        case CreateMailbox():
            keys: list[Key] = [("owner", owner), ("mailbox", command.mailbox)]
            if command.idempotency_key:
                keys.append(("request", request_id(owner, command.idempotency_key)))
            return keys
        case ReceiveMail(mailbox=mailbox):
            return [
                ("mailbox", mailbox),
                ("message", within(mailbox, command.message)),
                *repeat_keys(mailbox, command.message_id_digest, command.sha256),
            ]
        case ReportParsed() | ReadMessage() | DeleteMessage():
            return [("mailbox", command.mailbox), ("message", within(command.mailbox, command.message))]
        case _:
            return [("mailbox", command.mailbox), ("owner", owner)]


def decide(documents: Documents, command: MailboxCommand, now: datetime) -> list[MailboxEvent]:
    """What follows from this command, as things stand. `now` is the time of the input record, in UTC."""
    match command:
        case CreateMailbox():
            return [_create(documents, command, now)]
        case ReceiveMail():
            return [_receive(documents, command, now)]
        case ReportParsed():
            return _report_parsed(documents, command)
        case ReadMessage() | DeleteMessage():
            return [_change_message(documents, command, now)]
        case ExtendMailbox() | DeleteMailbox():
            return [_change_mailbox(documents, command, now)]
        case ExpireMailbox() | PurgeMailbox():
            return _end(documents, command, now)
        case _:
            assert_never(command)


def _create(documents: Documents, command: CreateMailbox, now: datetime) -> MailboxCreated | MailboxRefused:
    limits = command.plan.limits
    if command.idempotency_key:
        earlier = documents.get(("request", request_id(command.owner, command.idempotency_key)))
        if isinstance(earlier, Request):
            same = earlier.request == command.request
            reason: Literal["repeated", "idempotency_key_reused"] = "repeated" if same else "idempotency_key_reused"
            return MailboxRefused(command.mailbox, command.owner, reason, of=earlier.mailbox)
    if isinstance(documents.get(("mailbox", command.mailbox)), Mailbox):
        return MailboxRefused(command.mailbox, command.owner, "repeated", of=command.mailbox)
    owner = documents.get(("owner", command.owner))
    used = owner.live(now) if isinstance(owner, Owner) else 0
    if used >= limits.live_mailboxes:
        return MailboxRefused(command.mailbox, command.owner, "plan_limit_mailboxes", limits.live_mailboxes, used)
    return MailboxCreated(
        mailbox=command.mailbox,
        owner=command.owner,
        address_digest=command.address_digest,
        address=command.address,
        created_at=now,
        expires_at=now + timedelta(minutes=granted_minutes(command.ttl_minutes, limits)),
        plan=command.plan.name,
        plan_position=command.plan.position,
        limits=limits,
        token_version=1,
        request=command.request if command.idempotency_key else None,
        idempotency_key=command.idempotency_key,
    )


def _receive(documents: Documents, command: ReceiveMail, now: datetime) -> MessageReceived | MessageRejected:
    mailbox = documents.get(("mailbox", command.mailbox))
    reason = _reason_to_reject(documents, command, mailbox, now)
    if reason or not isinstance(mailbox, Mailbox) or command.state == "erased":
        return MessageRejected(
            command.message, command.mailbox, command.owner, reason or "unknown", command.size, command.sha256, now
        )
    return MessageReceived(
        message=command.message,
        mailbox=command.mailbox,
        owner=mailbox.owner,
        number=mailbox.received + 1,
        received_at=now,
        size=command.size,
        sha256=command.sha256,
        via=command.via,
        envelope=command.envelope,
        state=command.state,
        raw=command.raw,
        summary=command.summary,
        content=command.content,
        content_blob=command.content_blob,
        has_attachments=command.has_attachments,
        cause=command.cause,
        message_id_digest=command.message_id_digest,
    )


def _reason_to_reject(
    documents: Documents, command: ReceiveMail, mailbox: Document | None, now: datetime
) -> RejectReason | None:
    if not isinstance(mailbox, Mailbox):
        return "unknown"
    if mailbox.ended == "deleted":
        return "deleted"
    if not mailbox.open_at(now):
        return "expired"
    if command.state == "erased":
        return "erased"
    if _is_repeat(documents, command, now):
        return "repeated"
    return "full" if mailbox.live_messages >= mailbox.live_messages_limit else None


def _is_repeat(documents: Documents, command: ReceiveMail, now: datetime) -> bool:
    if isinstance(documents.get(("message", within(command.mailbox, command.message))), Message):
        return True
    keys = repeat_keys(command.mailbox, command.message_id_digest, command.sha256)
    earlier = documents.get(keys[0]) if keys else None
    return isinstance(earlier, Repeat) and now - earlier.at < REPEAT_WINDOW


def _report_parsed(documents: Documents, command: ReportParsed) -> list[MailboxEvent]:
    mailbox = documents.get(("mailbox", command.mailbox))
    message = documents.get(("message", within(command.mailbox, command.message)))
    if not isinstance(mailbox, Mailbox) or not isinstance(message, Message) or message.state != "parsing":
        return []
    return [
        MessageParsed(
            message=command.message,
            mailbox=command.mailbox,
            owner=mailbox.owner,
            state=command.state,
            summary=command.summary,
            content=command.content,
            content_blob=command.content_blob,
            has_attachments=command.has_attachments,
            cause=command.cause,
        )
    ]


def _change_message(documents: Documents, command: ReadMessage | DeleteMessage, now: datetime) -> MailboxEvent:
    mailbox = documents.get(("mailbox", command.mailbox))
    message = documents.get(("message", within(command.mailbox, command.message)))
    name: Literal["ReadMessage", "DeleteMessage"] = (
        "ReadMessage" if isinstance(command, ReadMessage) else "DeleteMessage"
    )
    if not isinstance(mailbox, Mailbox) or not isinstance(message, Message):
        return CommandRefused(name, "unknown", command.mailbox, command.message)
    if not mailbox.open_at(now):
        return CommandRefused(name, "ended", command.mailbox, command.message)
    if isinstance(command, DeleteMessage):
        return MessageDeleted(command.message, command.mailbox, mailbox.owner, command.by)
    if message.read:
        return CommandRefused(name, "already", command.mailbox, command.message)
    return MessageRead(command.message, command.mailbox, mailbox.owner)


def _change_mailbox(documents: Documents, command: ExtendMailbox | DeleteMailbox, now: datetime) -> MailboxEvent:
    mailbox = documents.get(("mailbox", command.mailbox))
    name: Literal["ExtendMailbox", "DeleteMailbox"] = (
        "ExtendMailbox" if isinstance(command, ExtendMailbox) else "DeleteMailbox"
    )
    if not isinstance(mailbox, Mailbox):
        return CommandRefused(name, "unknown", command.mailbox)
    if not mailbox.open_at(now):
        return CommandRefused(name, "ended", command.mailbox)
    if isinstance(command, DeleteMailbox):
        return MailboxDeleted(command.mailbox, mailbox.owner, command.by, now)
    longest = min(mailbox.longest_ttl_minutes, LONGEST_LIFETIME_MINUTES)
    latest = mailbox.created_at + timedelta(minutes=longest)
    asked = min(now + timedelta(minutes=min(command.ttl_minutes, longest)), latest)
    return MailboxExtended(command.mailbox, mailbox.owner, max(mailbox.expires_at, asked))


def _end(documents: Documents, command: ExpireMailbox | PurgeMailbox, now: datetime) -> list[MailboxEvent]:
    mailbox = documents.get(("mailbox", command.mailbox))
    if not isinstance(mailbox, Mailbox):
        return []
    if isinstance(command, PurgeMailbox):
        return [MailboxPurged(command.mailbox, mailbox.owner)] if mailbox.ended in ("deleted", "expired") else []
    due = mailbox.ended is None and mailbox.expires_at <= now
    return [MailboxExpired(command.mailbox, mailbox.owner, mailbox.expires_at)] if due else []
