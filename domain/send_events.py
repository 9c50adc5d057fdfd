"""What can happen to a send, a mail that somebody asked us to send: the facts that `send.events` keeps for ever.

The mail itself is sealed under its user's data key; no event names an address. A recipient is told by its number among the
mail's `to`, `cc` and `bcc`, from 0.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from domain.connection_events import Provider
from domain.delivery import DeferredCode, InDoubtCode, RecipientRefused, RefusedCode
from domain.fields import Digest, Sealed

#: Why a send was not taken on. Its id stands for nothing then.
SendRefusal = Literal["no_active_connection", "idempotency_key_reused", "user_deleted"]
#: Why a command about a send changed nothing.
NotDone = Literal["unknown", "too_late", "cancelled", "not_ended", "sent"]
#: Why no attempt was granted, or what one wanted to have on record was not taken.
NotGranted = Literal[
    "unknown",
    "running",
    "in_doubt",
    "not_due",
    "ended",
    "other_connection",
    "not_running",
    "out_of_time",
    "other_draft",
]
CancelledBy = Literal["caller", "connection_revoked", "user_deleted"]
#: Why a send failed for good: what the provider said, or what we found before it was asked.
FailedCode = RefusedCode | Literal["no_active_connection"]


@dataclass(frozen=True, slots=True)
class SendRequested:
    """Somebody asked for a mail to be sent, and it was promised. The mail is `message`, or a `blob` where it is large.

    `key` stands for the idempotency key, `body` for everything that was asked. `connection`: the one that was named, if any.
    """

    send: str
    user: str
    owner: str
    message_id: str
    body: Digest
    recipients: int
    attachments: list[str]
    size: int
    message: Sealed | None = None
    blob: str | None = None
    key: Digest | None = None
    scheduled_at: datetime | None = None
    connection: str | None = None
    preference: Provider | None = None
    callback: Sealed | None = None


@dataclass(frozen=True, slots=True)
class SendRepeated:
    """The same was asked again under the same idempotency key: `of` is the send that stands for it."""

    send: str
    user: str
    owner: str
    of: str


@dataclass(frozen=True, slots=True)
class SendRefused:
    """Nothing will be sent. `of` is the send that the idempotency key stands for already."""

    send: str
    user: str
    owner: str
    reason: SendRefusal
    of: str | None = None


@dataclass(frozen=True, slots=True)
class SendMoved:
    send: str
    user: str
    owner: str
    scheduled_at: datetime


@dataclass(frozen=True, slots=True)
class SendCancelled:
    """It was not sent, and will not be."""

    send: str
    user: str
    owner: str
    by: CancelledBy


@dataclass(frozen=True, slots=True)
class SendDispatched:
    """It goes out by this connection. `overdue_at`: when it is dispatched anew, should nothing have come of it."""

    send: str
    user: str
    owner: str
    connection: str
    provider: Provider
    mailbox: Digest
    overdue_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker may try to send it, until the deadline. No byte goes to the provider before this is on record.

    `draft` is what earlier attempts left at the provider: then that draft is sent, and no other. `last`: no further attempt
    will be granted if this one counts. `transmitted`: an earlier one may have sent it without a draft, and that is not known.
    """

    send: str
    user: str
    owner: str
    attempt: int
    worker: str
    deadline: datetime
    message_id: str
    connection: str
    provider: Provider
    draft: str | None = None
    draft_message: str | None = None
    transmitted: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class AttemptRefused:
    """No attempt was granted, or it may not go on. `next_at`: when one may be, where it is only too early."""

    send: str
    user: str
    owner: str
    reason: NotGranted
    attempt: int | None = None
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DraftRecorded:
    """The mail stands at the provider as this draft; it has not been sent yet. `message`: the message within the draft."""

    send: str
    user: str
    owner: str
    attempt: int
    draft: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class TransmissionStarted:
    """From here on, bytes that send the mail may leave, and no draft can tell whether they did."""

    send: str
    user: str
    owner: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """The provider has taken the mail. `refused`: recipients who will not get it."""

    send: str
    user: str
    owner: str
    attempt: int
    refused: list[RecipientRefused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AttemptDeferred:
    """It came to nothing, for sure, and will be tried again at `next_at`.

    `counted`: whether it is one of the attempts a send has; `since`: the first of the waits in a row that are none. `said` is
    what the provider said of it. `overdue_at`: when it is dispatched anew, should nothing have come of it; the same as
    `next_at` where nothing else waits for that time.
    """

    send: str
    user: str
    owner: str
    attempt: int
    code: DeferredCode
    counted: bool
    next_at: datetime
    overdue_at: datetime
    connection: str
    provider: Provider
    mailbox: Digest
    since: datetime | None = None
    said: Sealed | None = None


@dataclass(frozen=True, slots=True)
class AttemptInDoubt:
    """Nobody knows whether the mail went out. Until `until` the provider is asked, and no attempt is granted."""

    send: str
    user: str
    owner: str
    attempt: int
    code: InDoubtCode
    look_at: datetime
    until: datetime
    message_id: str
    connection: str
    provider: Provider
    mailbox: Digest
    draft: str | None = None
    draft_message: str | None = None
    said: Sealed | None = None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """It came to nothing, for sure. What becomes of the send is said by the next event."""

    send: str
    user: str
    owner: str
    attempt: int
    code: DeferredCode | RefusedCode
    permanent: bool
    counted: bool = True
    said: Sealed | None = None
    refused: list[RecipientRefused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SendSent:
    """The mail went out, once. `proven_by`: the provider's answer, or what was found when it was asked afterwards."""

    send: str
    user: str
    owner: str
    connection: str
    provider: Provider
    attempt: int
    proven_by: Literal["answer", "look"]
    provider_message_id: str | None = None
    thread_id: str | None = None
    refused: list[RecipientRefused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SendFailed:
    """It did not go out, and will not by itself: trying again as it is would come to the same."""

    send: str
    user: str
    owner: str
    code: FailedCode


@dataclass(frozen=True, slots=True)
class SendDeadLettered:
    """It did not go out, and is not tried any more by itself: its attempts or its time are used up, at last by `code`."""

    send: str
    user: str
    owner: str
    code: DeferredCode
    attempts: int
    connection: str
    provider: Provider


@dataclass(frozen=True, slots=True)
class SendUncertain:
    """Whether it went out can't be proven. It is not sent again unless somebody asks for that, or an answer that the provider
    gave to its last attempt is heard late, and proves that it did not.
    """

    send: str
    user: str
    owner: str
    attempt: int
    code: InDoubtCode


@dataclass(frozen=True, slots=True)
class SendRedriven:
    """Somebody had it tried again, with a full number of attempts and what is left at the provider of earlier ones."""

    send: str
    user: str
    owner: str
    by: str


@dataclass(frozen=True, slots=True)
class SendCommandRefused:
    """A command about a send that could not be carried out as things stood; nothing changed."""

    command: Literal["MoveSend", "CancelSend", "RedriveSend"]
    send: str
    user: str
    reason: NotDone


SendEvent = (
    SendRequested
    | SendRepeated
    | SendRefused
    | SendMoved
    | SendCancelled
    | SendDispatched
    | AttemptStarted
    | AttemptRefused
    | DraftRecorded
    | TransmissionStarted
    | AttemptSucceeded
    | AttemptDeferred
    | AttemptInDoubt
    | AttemptFailed
    | SendSent
    | SendFailed
    | SendDeadLettered
    | SendUncertain
    | SendRedriven
    | SendCommandRefused
)
