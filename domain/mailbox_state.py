"""What the fold of `mailbox.events` knows: small documents, named by (kind, id), and how each event changes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, assert_never

from domain.fields import Digest
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
    MessageState,
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Mailboxes that have not ended yet, and when each expires."""

    mailboxes: dict[str, datetime]

    def live(self, now: datetime) -> int:
        return sum(expires_at > now for expires_at in self.mailboxes.values())


@dataclass(frozen=True, slots=True)
class Mailbox:
    owner: str
    created_at: datetime
    expires_at: datetime
    live_messages_limit: int
    longest_ttl_minutes: int
    live_messages: int = 0
    received: int = 0
    ended: Literal["deleted", "expired"] | None = None

    def open_at(self, now: datetime) -> bool:
        return self.ended is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Message:
    state: MessageState
    read: bool = False


@dataclass(frozen=True, slots=True)
class Repeat:
    """When a mail with this Message-ID digest and content was received."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """The mailbox that an idempotency key stands for, and the digest of the request that made it."""

    mailbox: str
    request: Digest | None


Document = Owner | Mailbox | Message | Repeat | Request
Key = tuple[str, str]
Documents = Mapping[Key, Document | None]

#: `(WITHIN, id): None` among the changes of an event forgets every document whose id begins with that id and a slash.
WITHIN: Final = "within"


def touches(event: MailboxEvent) -> list[Key]:
    """The documents that folding this event changes."""
    match event:
        case MailboxCreated(mailbox=mailbox, owner=owner):
            keys: list[Key] = [("owner", owner), ("mailbox", mailbox)]
            if event.idempotency_key:
                keys.append(("request", request_id(owner, event.idempotency_key)))
            return keys
        case MailboxExtended() | MailboxDeleted() | MailboxExpired():
            return [("owner", event.owner), ("mailbox", event.mailbox)]
        case MessageReceived():
            return [
                ("mailbox", event.mailbox),
                ("message", within(event.mailbox, event.message)),
                *repeat_keys(event.mailbox, event.message_id_digest, event.sha256),
            ]
        case MessageDeleted() | MessageParsed() | MessageRead():
            return [("mailbox", event.mailbox), ("message", within(event.mailbox, event.message))]
        case MailboxPurged():
            return [("mailbox", event.mailbox)]
        case MailboxRefused() | MessageRejected() | CommandRefused():
            return []
        case _:
            assert_never(event)


def evolve(documents: Documents, event: MailboxEvent) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it; None where one is forgotten."""
    match event:
        case MailboxCreated():
            return _created(documents, event)
        case MailboxExtended() | MailboxDeleted() | MailboxExpired() | MailboxPurged():
            return _mailbox_changed(documents, event)
        case MessageReceived() | MessageParsed() | MessageRead() | MessageDeleted():
            return _message_changed(documents, event)
        case MailboxRefused() | MessageRejected() | CommandRefused():
            return {}
        case _:
            assert_never(event)


def _created(documents: Documents, event: MailboxCreated) -> dict[Key, Document | None]:
    owner = documents.get(("owner", event.owner))
    live = owner.mailboxes if isinstance(owner, Owner) else {}
    changed: dict[Key, Document | None] = {
        ("owner", event.owner): Owner({**live, event.mailbox: event.expires_at}),
        ("mailbox", event.mailbox): Mailbox(
            owner=event.owner,
            created_at=event.created_at,
            expires_at=event.expires_at,
            live_messages_limit=event.limits.live_messages,
            longest_ttl_minutes=event.limits.longest_ttl_minutes,
        ),
    }
    if event.idempotency_key:
        changed["request", request_id(event.owner, event.idempotency_key)] = Request(event.mailbox, event.request)
    return changed


def _mailbox_changed(
    documents: Documents, event: MailboxExtended | MailboxDeleted | MailboxExpired | MailboxPurged
) -> dict[Key, Document | None]:
    key = ("mailbox", event.mailbox)
    mailbox = documents.get(key)
    if not isinstance(mailbox, Mailbox):
        return {}
    if isinstance(event, MailboxPurged):
        return {key: None, (WITHIN, event.mailbox): None}
    owner = documents.get(("owner", event.owner))
    others = {m: at for m, at in owner.mailboxes.items() if m != event.mailbox} if isinstance(owner, Owner) else {}
    if isinstance(event, MailboxExtended):
        return {
            key: replace(mailbox, expires_at=event.expires_at),
            ("owner", event.owner): Owner({**others, event.mailbox: event.expires_at}),
        }
    ended: Literal["deleted", "expired"] = "deleted" if isinstance(event, MailboxDeleted) else "expired"
    return {key: replace(mailbox, ended=ended), ("owner", event.owner): Owner(others) if others else None}


def _message_changed(
    documents: Documents, event: MessageReceived | MessageParsed | MessageRead | MessageDeleted
) -> dict[Key, Document | None]:
    box_key, key = ("mailbox", event.mailbox), ("message", within(event.mailbox, event.message))
    mailbox, message = documents.get(box_key), documents.get(key)
    if not isinstance(mailbox, Mailbox):
        return {}
    match event:
        case MessageReceived():
            repeats = repeat_keys(event.mailbox, event.message_id_digest, event.sha256)
            return {
                box_key: replace(mailbox, live_messages=mailbox.live_messages + 1, received=event.number),
                key: Message(event.state),
                **{repeat: Repeat(event.received_at) for repeat in repeats},
            }
        case MessageDeleted():
            return {box_key: replace(mailbox, live_messages=mailbox.live_messages - 1), key: None}
        case MessageParsed():
            return {key: replace(message, state=event.state)} if isinstance(message, Message) else {}
        case MessageRead():
            return {key: replace(message, read=True)} if isinstance(message, Message) else {}


def within(mailbox: str, part: str) -> str:
    """Documents of one mailbox share its id as the beginning of theirs, so that they can be forgotten together."""
    return f"{mailbox}/{part}"


def repeat_keys(mailbox: str, message_id_digest: Digest | None, sha256: str) -> list[Key]:
    return [("repeat", within(mailbox, f"{message_id_digest}.{sha256[:32]}"))] if message_id_digest else []


def request_id(owner: str, idempotency_key: Digest) -> str:
    return f"{owner}/{idempotency_key}"
