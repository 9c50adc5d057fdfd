"""What the fold of `send.events` knows: one document for each send and one for each idempotency key."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from domain.connection_events import Provider
from domain.delivery import DeferredCode, InDoubtCode
from domain.fields import Digest
from domain.send_events import (
    AttemptDeferred,
    AttemptFailed,
    AttemptInDoubt,
    AttemptRefused,
    AttemptStarted,
    AttemptSucceeded,
    DraftRecorded,
    SendCancelled,
    SendCommandRefused,
    SendDeadLettered,
    SendDispatched,
    SendEvent,
    SendFailed,
    SendMoved,
    SendRedriven,
    SendRefused,
    SendRepeated,
    SendRequested,
    SendSent,
    SendUncertain,
    TransmissionStarted,
)

State = Literal[
    "scheduled",
    "queued",
    "sending",
    "in_doubt",
    "deferred",
    "sent",
    "failed",
    "cancelled",
    "uncertain",
    "dead_lettered",
]


@dataclass(frozen=True, slots=True)
class Send:
    """One send. `due` is when its timer has something to do.

    `counted` and `waits` are attempts since it began, or was redriven; `dispatches` is how often it was dispatched since the
    last attempt. `named`: the caller named the connection, so there is no other. `waiting_since`: the first of the waits that
    a provider asked for, with no counted attempt since. `waits_for` and `doubt` are the codes of the last deferral and the
    last doubt that was left open. `transmitted`: it may have gone out without a draft. `uncertain`: it may have gone out, by
    an attempt that has ended so. `sole_doubt`: only its last attempt may have sent it, so that what this one was answered
    decides, however late it is heard.
    """

    user: str
    owner: str
    state: State
    message_id: str
    due: datetime | None = None
    named: str | None = None
    preference: Provider | None = None
    connection: str | None = None
    provider: Provider | None = None
    mailbox: Digest | None = None
    attempt: int = 0
    counted: int = 0
    waits: int = 0
    dispatches: int = 0
    waiting_since: datetime | None = None
    waits_for: DeferredCode | None = None
    doubt: InDoubtCode | None = None
    uncertain: bool = False
    sole_doubt: bool = False
    draft: str | None = None
    draft_message: str | None = None
    transmitted: bool = False
    #: Of the attempt that runs or is in doubt: whether bytes that send the mail may have left in it.
    touched: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ("sent", "failed", "cancelled", "uncertain", "dead_lettered")


@dataclass(frozen=True, slots=True)
class Taken:
    """An idempotency key: the send that it stands for, and what was asked with it."""

    send: str
    body: Digest


Document = Send | Taken
Key = tuple[str, str]
Documents = Mapping[Key, Document | None]


def touches(event: SendEvent) -> list[Key]:
    """The documents that folding this event changes."""
    match event:
        case SendRequested():
            return [("send", event.send), *([("key", event.key)] if event.key else [])]
        case SendRepeated() | SendRefused() | SendCommandRefused() | AttemptRefused() | AttemptSucceeded():
            return []
        case _:
            return [("send", event.send)]


def evolve(documents: Documents, event: SendEvent) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it."""
    if isinstance(event, SendRequested):
        return _requested(event)
    if isinstance(event, SendRepeated | SendRefused | SendCommandRefused | AttemptRefused | AttemptSucceeded):
        return {}
    key = ("send", event.send)
    send = documents.get(key)
    return {key: _evolved(send, event)} if isinstance(send, Send) else {}


def _requested(event: SendRequested) -> dict[Key, Document | None]:
    send = Send(
        user=event.user,
        owner=event.owner,
        state="scheduled" if event.scheduled_at else "queued",
        message_id=event.message_id,
        due=event.scheduled_at,
        named=event.connection,
        preference=event.preference,
    )
    documents: dict[Key, Document | None] = {("send", event.send): send}
    if event.key:
        documents["key", event.key] = Taken(event.send, event.body)
    return documents


def _evolved(  # noqa: PLR0911 - one return for each event
    send: Send,
    event: SendMoved
    | SendCancelled
    | SendDispatched
    | AttemptStarted
    | DraftRecorded
    | TransmissionStarted
    | AttemptDeferred
    | AttemptInDoubt
    | AttemptFailed
    | SendSent
    | SendFailed
    | SendDeadLettered
    | SendUncertain
    | SendRedriven,
) -> Send:
    match event:
        case SendMoved():
            return replace(send, due=event.scheduled_at)
        case SendDispatched():
            return replace(
                send,
                state="queued",
                connection=event.connection,
                provider=event.provider,
                mailbox=event.mailbox,
                due=event.overdue_at,
                dispatches=send.dispatches + 1,
            )
        case AttemptStarted():
            return replace(
                send,
                state="sending",
                attempt=event.attempt,
                due=event.deadline,
                touched=event.draft is not None,
                dispatches=0,
            )
        case DraftRecorded():
            return replace(send, draft=event.draft, draft_message=event.message, touched=True)
        case TransmissionStarted():
            return replace(send, transmitted=True, touched=True)
        case AttemptDeferred():
            return _waiting(send, event)
        case AttemptFailed():
            return replace(_settled(send), counted=send.counted + event.counted)
        case AttemptInDoubt():
            return replace(send, state="in_doubt", due=event.until, doubt=event.code, sole_doubt=send.doubt is None)
        case SendRedriven():
            again = replace(send, counted=0, waits=0, dispatches=0, waiting_since=None)
            return replace(again, state="queued", due=None, sole_doubt=False)
        case _:
            uncertain = isinstance(event, SendUncertain)
            sole_doubt = uncertain and send.sole_doubt
            return replace(send, state=_end(event), due=None, uncertain=uncertain, sole_doubt=sole_doubt)


def _waiting(send: Send, event: AttemptDeferred) -> Send:
    """`due` is when an attempt may be granted; the timer's own, later time is in the event."""
    if event.counted:
        counted, waits, since = send.counted + 1, 0, None
    else:
        counted, waits, since = send.counted, send.waits + 1, event.since
    settled = _settled(send)
    return replace(
        settled,
        state="deferred",
        due=event.next_at,
        counted=counted,
        waits=waits,
        waiting_since=since,
        waits_for=event.code,
        uncertain=settled.uncertain and event.code != "proven_absent",
    )


def _settled(send: Send) -> Send:
    """After an attempt that came to nothing for sure: what left in it sent no mail, and earlier doubts stay open."""
    doubt = None if send.sole_doubt else send.doubt
    transmitted, uncertain = send.transmitted and doubt is not None, send.uncertain and not send.sole_doubt
    return replace(send, doubt=doubt, transmitted=transmitted, uncertain=uncertain, sole_doubt=False)


def _end(event: SendCancelled | SendSent | SendFailed | SendDeadLettered | SendUncertain) -> State:
    match event:
        case SendCancelled():
            return "cancelled"
        case SendSent():
            return "sent"
        case SendFailed():
            return "failed"
        case SendDeadLettered():
            return "dead_lettered"
        case SendUncertain():
            return "uncertain"
