"""Words for specifications of sends: one user with three mailboxes, and what is asked and said of a mail of theirs."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from domain import retry
from domain.fields import Digest, Sealed
from domain.send_commands import (
    ClaimAttempt,
    KnownConnection,
    ReportAttempt,
    ReportReconciled,
    RequestSend,
    StartSend,
)
from domain.send_events import (
    AttemptDeferred,
    AttemptFailed,
    AttemptInDoubt,
    AttemptStarted,
    AttemptSucceeded,
    DraftRecorded,
    SendCancelled,
    SendDeadLettered,
    SendDispatched,
    SendFailed,
    SendRequested,
    SendSent,
    SendUncertain,
    TransmissionStarted,
)
from tests.support.spec import START, at

SEND, USER, OWNER = "snd_1", "usr_1", "acc_1"
ABOUT: Final = (SEND, USER, OWNER)
MESSAGE_ID = "<snd_1@postledger.example>"
SECONDS = 60.0
DEADLINE = at(seconds=SECONDS)
GMAIL = KnownConnection("con_1", "gmail", Digest("#ada@gmail"), "active")
OUTLOOK = KnownConnection("con_2", "outlook", Digest("#ada@outlook"), "active")
SMTP = KnownConnection("con_3", "smtp", Digest("#ada@smtp"), "active")


def waits(connection: KnownConnection) -> KnownConnection:
    """It has to be connected anew."""
    return replace(connection, state="reauth_required")


def revoked(connection: KnownConnection) -> KnownConnection:
    return replace(connection, state="revoked")


def request(*connections: KnownConnection, send: str = SEND, **more: Any) -> RequestSend:
    """A mail to two, by one of these connections; by Gmail where none is given."""
    command = RequestSend(
        send=send,
        user=USER,
        owner=OWNER,
        message_id=MESSAGE_ID,
        body=Digest("#body"),
        recipients=2,
        attachments=["att_1"],
        size=1824,
        connections=list(connections) or [GMAIL],
        message=Sealed("sealed"),
        key=Digest("#key"),
    )
    return replace(command, **more)


def requested(command: RequestSend | None = None) -> SendRequested:
    """The promise that follows from it."""
    said = command or request()
    return SendRequested(
        send=said.send,
        user=said.user,
        owner=said.owner,
        message_id=said.message_id,
        body=said.body,
        recipients=said.recipients,
        attachments=said.attachments,
        size=said.size,
        message=said.message,
        blob=said.blob,
        key=said.key,
        scheduled_at=said.scheduled_at,
        connection=said.connection,
        preference=said.preference,
        callback=said.callback,
    )


def dispatched(
    by: KnownConnection = GMAIL, now: datetime = START, *, scale: float = 1, in_vain: int = 0
) -> SendDispatched:
    """`in_vain`: so many times before, with no attempt since."""
    overdue = now + timedelta(minutes=2 * 2**in_vain) * scale
    return SendDispatched(*ABOUT, by.connection, by.provider, by.mailbox, overdue)


def start(*connections: KnownConnection, due: datetime = START, **more: Any) -> StartSend:
    return replace(StartSend(SEND, USER, due, list(connections) or [GMAIL]), **more)


def claim(**more: Any) -> ClaimAttempt:
    return replace(ClaimAttempt(SEND, USER, "worker-1", SECONDS), **more)


def started(attempt: int = 1, by: KnownConnection = GMAIL, now: datetime = START, **more: Any) -> AttemptStarted:
    granted = AttemptStarted(
        *ABOUT,
        attempt=attempt,
        worker="worker-1",
        deadline=now + timedelta(seconds=SECONDS),
        message_id=MESSAGE_ID,
        connection=by.connection,
        provider=by.provider,
    )
    return replace(granted, **more)


def report(outcome: Any, code: Any = None, attempt: int = 1, **more: Any) -> ReportAttempt:
    return replace(ReportAttempt(SEND, USER, attempt, outcome, code), **more)


def reconciled(found: Any, attempt: int = 1, **more: Any) -> ReportReconciled:
    return replace(ReportReconciled(SEND, USER, attempt, found), **more)


def deferred(
    code: Any = "unreachable",
    attempt: int = 1,
    *,
    failures: int = 1,
    by: KnownConnection = GMAIL,
    now: datetime = START,
    **more: Any,
) -> AttemptDeferred:
    """It came to nothing and counts, for the so-manieth time."""
    next_at = retry.next_try(SEND, failures, now, counted=True, retry_after=None, scale=1)
    event = AttemptDeferred(
        *ABOUT,
        attempt=attempt,
        code=code,
        counted=True,
        next_at=next_at,
        overdue_at=next_at + timedelta(minutes=2),
        connection=by.connection,
        provider=by.provider,
        mailbox=by.mailbox,
    )
    return replace(event, **more)


def waiting(
    code: Any = "rate_limited",
    attempt: int = 1,
    *,
    seconds: float = 600,
    since: datetime = START,
    by: KnownConnection = GMAIL,
) -> AttemptDeferred:
    """It came to nothing and doesn't count: somebody has to be waited for, until so long after the beginning."""
    next_at = at(seconds=seconds)
    overdue_at = next_at + timedelta(minutes=2)
    return deferred(code, attempt, by=by, counted=False, next_at=next_at, overdue_at=overdue_at, since=since)


def in_doubt(
    code: Any = "timed_out",
    attempt: int = 1,
    *,
    by: KnownConnection = GMAIL,
    look_at: datetime = DEADLINE,
    draft: str | None = "d_1",
) -> AttemptInDoubt:
    return AttemptInDoubt(
        *ABOUT,
        attempt=attempt,
        code=code,
        look_at=look_at,
        until=look_at + timedelta(seconds=3530),
        message_id=MESSAGE_ID,
        connection=by.connection,
        provider=by.provider,
        mailbox=by.mailbox,
        draft=draft,
    )


def sent(
    attempt: int = 1, by: KnownConnection = GMAIL, *, proven_by: Any = "answer", **more: Any
) -> tuple[AttemptSucceeded, SendSent]:
    refused = more.get("refused", [])
    event = SendSent(*ABOUT, by.connection, by.provider, attempt, proven_by)
    return AttemptSucceeded(*ABOUT, attempt, refused), replace(event, **more)


def failed(code: Any = "message_refused", attempt: int = 1) -> tuple[AttemptFailed, SendFailed]:
    return AttemptFailed(*ABOUT, attempt, code, permanent=True), SendFailed(*ABOUT, code)


def dead_lettered(
    code: Any = "unreachable", attempt: int = 5, *, by: KnownConnection = GMAIL, counted: bool = True
) -> tuple[AttemptFailed, SendDeadLettered]:
    gave_up = AttemptFailed(*ABOUT, attempt, code, permanent=False, counted=counted)
    return gave_up, SendDeadLettered(*ABOUT, code, attempt, by.connection, by.provider)


def uncertain(code: Any = "timed_out", attempt: int = 1) -> SendUncertain:
    return SendUncertain(*ABOUT, attempt, code)


def tried(times: int, by: KnownConnection = GMAIL) -> list[Any]:
    """So many counted attempts that came to nothing."""
    events: list[Any] = []
    for attempt in range(1, times + 1):
        events += [started(attempt, by), deferred(attempt=attempt, failures=attempt, by=by)]
    return events


DRAFTED = DraftRecorded(*ABOUT, 1, "d_1")
TRANSMITTED = TransmissionStarted(*ABOUT, 1)
QUEUED = [requested(), dispatched()]
SENDING = [*QUEUED, started()]
#: Each state that a send can be in, by the events that lead there.
STATES: Final[dict[str, list[Any]]] = {
    "scheduled": [requested(request(scheduled_at=at(hours=1)))],
    "queued": QUEUED,
    "sending": SENDING,
    "in_doubt": [*SENDING, DRAFTED, in_doubt()],
    "deferred": [*SENDING, deferred()],
    "sent": [*SENDING, DRAFTED, *sent()],
    "failed": [*SENDING, *failed()],
    "cancelled": [*QUEUED, SendCancelled(*ABOUT, "caller")],
    "uncertain": [*SENDING, DRAFTED, in_doubt(), uncertain()],
    "dead_lettered": [*QUEUED, *tried(4), started(5), *dead_lettered()],
}
ENDED: Final = ("sent", "failed", "cancelled", "uncertain", "dead_lettered")
#: The same by SMTP: no draft, and what is in doubt is uncertain at once.
BY_SMTP: Final[list[Any]] = [requested(request(SMTP)), dispatched(SMTP), started(by=SMTP)]
