"""What can be asked of a send, keyed by its user."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from domain.connection_events import Provider
from domain.delivery import DeferredCode, InDoubtCode, RecipientRefused, RefusedCode
from domain.fields import Digest, Sealed


@dataclass(frozen=True, slots=True)
class KnownConnection:
    """A user's connection as the tables had it when the command was written, the most recently connected first in a list.

    `mailbox` is the digest of its address, whose limits connections share, but by SMTP. `troubled`: its last refresh
    failed.
    """

    connection: str
    provider: Provider
    mailbox: Digest
    state: Literal["active", "reauth_required", "revoked"]
    troubled: bool = False


@dataclass(frozen=True, slots=True)
class RequestSend:
    """A mail to be sent: `message` sealed for `place("send", send, "message")`, or a `blob` sealed likewise.

    `scale` is the factor on every wait of our own.
    """

    send: str
    user: str
    owner: str
    message_id: str
    body: Digest
    recipients: int
    attachments: list[str]
    size: int
    connections: list[KnownConnection]
    message: Sealed | None = None
    blob: str | None = None
    key: Digest | None = None
    scheduled_at: datetime | None = None
    connection: str | None = None
    preference: Provider | None = None
    callback: Sealed | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class MoveSend:
    send: str
    user: str
    owner: str
    scheduled_at: datetime


@dataclass(frozen=True, slots=True)
class CancelSend:
    send: str
    user: str
    owner: str


@dataclass(frozen=True, slots=True)
class StartSend:
    """Its time has come, or nothing has come of it for too long. `due` is the time that the timer stood for."""

    send: str
    user: str
    due: datetime
    connections: list[KnownConnection]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class WakeSend:
    """It waits for a user who has connected the mailbox again."""

    send: str
    user: str
    connection: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class StopSend:
    """The connection is not used any more: what waits for it ends. `connections` are those that are left."""

    send: str
    user: str
    connection: str
    by: Literal["connection_revoked", "user_deleted"]
    connections: list[KnownConnection]


@dataclass(frozen=True, slots=True)
class ClaimAttempt:
    """A worker asks to try. `seconds`: how long it may take. `connection`: the one it has made ready, where it says so."""

    send: str
    user: str
    worker: str
    seconds: float
    connection: str | None = None


@dataclass(frozen=True, slots=True)
class NoteDraft:
    """The mail stands at the provider as a draft, which will now be sent."""

    send: str
    user: str
    attempt: int
    draft: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class NoteTransmission:
    """Bytes that send the mail are about to leave."""

    send: str
    user: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReportAttempt:
    """What came of an attempt. The fields are those of `domain/delivery.py`; `code` is of the outcome's own list."""

    send: str
    user: str
    attempt: int
    outcome: Literal["accepted", "deferred", "refused", "in_doubt"]
    code: DeferredCode | RefusedCode | InDoubtCode | None = None
    provider_message_id: str | None = None
    thread_id: str | None = None
    refused: list[RecipientRefused] = field(default_factory=list)
    retry_after: float | None = None
    counted: bool = True
    said: Sealed | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class DoubtAttempt:
    """The attempt's deadline has passed, or the time in which the provider was asked."""

    send: str
    user: str
    attempt: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class ReportReconciled:
    """What the provider was found to have. `unknown`: the last look has shown nothing either."""

    send: str
    user: str
    attempt: int
    found: Literal["proven_absent", "proven_sent", "unknown"]
    provider_message_id: str | None = None
    thread_id: str | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class RedriveSend:
    send: str
    user: str
    owner: str
    by: str
    connections: list[KnownConnection]
    scale: float = 1.0
    attempt: int | None = None


SendCommand = (
    RequestSend
    | MoveSend
    | CancelSend
    | StartSend
    | WakeSend
    | StopSend
    | ClaimAttempt
    | NoteDraft
    | NoteTransmission
    | ReportAttempt
    | DoubtAttempt
    | ReportReconciled
    | RedriveSend
)
