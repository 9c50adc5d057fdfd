"""What webhooks tell of: the types there are, and what each says of the event that it stands for.

Thin: ids, states, times and codes. Never an address, a subject or a body, so nothing of it needs a key to be read.
"""

from dataclasses import dataclass
from typing import Any, Final

from domain.connection_events import ReauthorisationRequired, RevocationRequested
from domain.mailbox_events import MailboxExpired, MessageParsed, MessageReceived
from domain.send_events import (
    AttemptDeferred,
    SendCancelled,
    SendDeadLettered,
    SendFailed,
    SendSent,
    SendUncertain,
)

TYPES: Final = (
    "send.sent",
    "send.failed",
    "send.deferred",
    "send.uncertain",
    "send.dead_lettered",
    "send.cancelled",
    "connection.reauth_required",
    "connection.revoked",
    "mailbox.message_received",
    "mailbox.expired",
)
#: What somebody has sent to see whether it arrives. Nobody subscribes to it.
TEST: Final = "webhook.test"

#: The events that are told of, by the context they stand in.
OF_MAILBOXES: Final = (MessageReceived, MessageParsed, MailboxExpired)
OF_CONNECTIONS: Final = (ReauthorisationRequired, RevocationRequested)
OF_SENDS: Final = (SendSent, SendFailed, AttemptDeferred, SendUncertain, SendDeadLettered, SendCancelled)


@dataclass(frozen=True, slots=True)
class Said:
    """What is told of one event. `account` is None where the event doesn't name it; `message` a mail's or a send's id.

    `connection` and `user`: whose event it is, where it is one of theirs.
    """

    type: str
    data: dict[str, Any]
    account: str | None = None
    message: str | None = None
    connection: str | None = None
    user: str | None = None


def said(event: object) -> Said | None:
    """What is told of an event; None where nothing is, as of a mail that is still being parsed."""
    match event:
        case MessageReceived() | MessageParsed():
            return _of_message(event)
        case MailboxExpired(mailbox, owner, at):
            return Said("mailbox.expired", {"mailboxId": mailbox, "status": "expired", "expiredAt": at}, owner)
        case ReauthorisationRequired(connection, user, code):
            data = {"connectionId": connection, "userId": user, "status": "reauth_required", "code": code}
            return Said("connection.reauth_required", data, connection=connection, user=user)
        case RevocationRequested(connection, user, by):
            data = {"connectionId": connection, "userId": user, "status": "revoked", "by": by}
            return Said("connection.revoked", data, connection=connection, user=user)
        case SendSent() | SendFailed() | AttemptDeferred() | SendUncertain() | SendDeadLettered() | SendCancelled():
            status, more = _of_send(event)
            data = {"messageId": event.send, "userId": event.user, "status": status, **more}
            return Said(f"send.{status}", data, event.owner, event.send, user=event.user)
        case _:
            return None


def _of_message(event: MessageReceived | MessageParsed) -> Said | None:
    if event.state == "parsing":
        return None
    data = {
        "messageId": event.message,
        "mailboxId": event.mailbox,
        "status": "received",
        "state": event.state,
        "hasAttachments": event.has_attachments,
    }
    return Said("mailbox.message_received", data, event.owner, event.message)


def _of_send(
    event: SendSent | SendFailed | AttemptDeferred | SendUncertain | SendDeadLettered | SendCancelled,
) -> tuple[str, dict[str, Any]]:
    """The send's state, and what is told beside it."""
    match event:
        case SendSent():
            more = {
                "connectionId": event.connection,
                "provider": event.provider,
                "attempt": event.attempt,
                "providerMessageId": event.provider_message_id,
                "threadId": event.thread_id,
                "recipientsRefused": len(event.refused),
            }
            return "sent", more
        case SendFailed():
            return "failed", {"code": event.code}
        case AttemptDeferred():
            return "deferred", {"code": event.code, "attempt": event.attempt, "nextAttemptAt": event.next_at}
        case SendUncertain():
            return "uncertain", {"code": event.code, "attempt": event.attempt}
        case SendDeadLettered():
            return "dead_lettered", {"code": event.code, "attempts": event.attempts}
        case SendCancelled():
            return "cancelled", {"by": event.by}
