"""The rules of one attempt: when it is granted, what it has on record before the mail may leave, and what follows from what
came of it."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never, cast, get_args

from domain import retry
from domain.delivery import DeferredCode, InDoubtCode, RefusedCode
from domain.send_commands import (
    ClaimAttempt,
    DoubtAttempt,
    NoteDraft,
    NoteTransmission,
    ReportAttempt,
    ReportReconciled,
    StartSend,
    StopSend,
    WakeSend,
)
from domain.send_events import (
    AttemptDeferred,
    AttemptFailed,
    AttemptInDoubt,
    AttemptRefused,
    AttemptStarted,
    AttemptSucceeded,
    DraftRecorded,
    NotGranted,
    SendCancelled,
    SendDeadLettered,
    SendEvent,
    SendFailed,
    SendSent,
    SendUncertain,
    TransmissionStarted,
)
from domain.send_state import Send
from domain.spread import after

CODES: Final = {
    "deferred": get_args(DeferredCode),
    "refused": get_args(RefusedCode),
    "in_doubt": get_args(InDoubtCode),
}
AttemptCommand = ClaimAttempt | NoteDraft | NoteTransmission | ReportAttempt | DoubtAttempt | ReportReconciled


def of_nothing(command: AttemptCommand | StartSend | WakeSend | StopSend) -> list[SendEvent]:
    """Nobody knows this send. A worker waits for an answer; timers and reports do not."""
    if isinstance(command, ClaimAttempt | NoteDraft | NoteTransmission):
        return [AttemptRefused(command.send, command.user, "", "unknown", getattr(command, "attempt", None))]
    return []


def decide(send: Send, command: AttemptCommand, now: datetime) -> list[SendEvent]:
    """What follows from a worker's word, or a timer's. Raises ValueError for a report whose code is not of its outcome."""
    match command:
        case ClaimAttempt():
            return [_claim(send, command, now)]
        case NoteDraft() | NoteTransmission():
            return [_note(send, command, now)]
        case ReportAttempt():
            return _report(send, command, now)
        case DoubtAttempt():
            return _doubt(send, command, now)
        case ReportReconciled():
            return _reconciled(send, command, now)
        case _:
            assert_never(command)


# ── before the mail may leave ─────────────────────────────────────────────────────────────────────────────────────────


def _claim(send: Send, command: ClaimAttempt, now: datetime) -> AttemptStarted | AttemptRefused:
    about = (command.send, send.user, send.owner)
    if send.state == "sending":
        return AttemptRefused(*about, "running", send.attempt)
    if send.state == "in_doubt":
        return AttemptRefused(*about, "in_doubt", send.attempt)
    if send.ended:
        return AttemptRefused(*about, "ended")
    if send.connection is not None and command.connection not in (None, send.connection):
        # Work of a connection it was taken from: the sender, the scopes and the limits that it has made ready are not these.
        return AttemptRefused(*about, "other_connection")
    if send.state == "scheduled" or (send.state == "deferred" and send.due is not None and now < send.due):
        return AttemptRefused(*about, "not_due", next_at=send.due)
    assert send.connection is not None
    assert send.provider is not None
    deadline = after(now, timedelta(seconds=command.seconds))
    return AttemptStarted(
        *about,
        attempt=send.attempt + 1,
        worker=command.worker,
        deadline=deadline,
        message_id=send.message_id,
        connection=send.connection,
        provider=send.provider,
        draft=send.draft,
        draft_message=send.draft_message,
        transmitted=send.transmitted,
        last=send.counted + 1 >= retry.ATTEMPTS,
    )


def _note(send: Send, command: NoteDraft | NoteTransmission, now: datetime) -> SendEvent:
    about = (command.send, send.user, send.owner)
    reason: NotGranted | None = None
    if send.state != "sending" or send.attempt != command.attempt:
        reason = "not_running"
    elif send.due is not None and now >= send.due:
        reason = "out_of_time"
    elif isinstance(command, NoteDraft) and send.draft not in (None, command.draft):
        reason = "other_draft"  # two drafts of one mail could both be sent
    if reason is not None:
        return AttemptRefused(*about, reason, command.attempt)
    if isinstance(command, NoteDraft):
        return DraftRecorded(*about, command.attempt, command.draft, command.message)
    return TransmissionStarted(*about, command.attempt)


# ── what came of it ───────────────────────────────────────────────────────────────────────────────────────────────────


def _report(send: Send, command: ReportAttempt, now: datetime) -> list[SendEvent]:
    if command.outcome == "accepted":
        return _accepted(send, command)
    if command.code not in CODES[command.outcome]:
        # An event that says it could not be read by anybody: the command fails instead, and a timer ends the attempt.
        raise ValueError(f"{command.code} is no code of {command.outcome}")
    if command.attempt != send.attempt or not _is_open(send):
        return []  # it is known already what became of it
    if command.outcome == "in_doubt":
        return _in_doubt(send, command, cast("InDoubtCode", command.code), now) if send.state == "sending" else []
    if send.sole_doubt:
        send = replace(send, uncertain=False)  # by this answer, which was missing
    if command.outcome == "deferred":
        return _deferred(
            send,
            command,
            cast("DeferredCode", command.code),
            now,
            counted=command.counted,
            retry_after=command.retry_after,
        )
    about, refused = (command.send, send.user, send.owner), cast("RefusedCode", command.code)
    failed = AttemptFailed(*about, command.attempt, refused, permanent=True, said=command.said, refused=command.refused)
    return [failed, ended(send, SendFailed(*about, refused))]


def _is_open(send: Send) -> bool:
    """Whether the answer to its last attempt says what becomes of it: not where another one may have sent it."""
    return send.state in ("sending", "in_doubt") or (send.state == "uncertain" and send.sole_doubt)


def _accepted(send: Send, command: ReportAttempt) -> list[SendEvent]:
    """That the provider has taken it is true whatever we have come to think in the meantime."""
    if send.state == "sent" or not 0 < command.attempt <= send.attempt:
        return []
    assert send.connection is not None
    assert send.provider is not None
    about = (command.send, send.user, send.owner)
    sent = SendSent(
        *about,
        send.connection,
        send.provider,
        command.attempt,
        "answer",
        command.provider_message_id,
        command.thread_id,
        command.refused,
    )
    return [AttemptSucceeded(*about, command.attempt, command.refused), sent]


def _deferred(
    send: Send,
    command: ReportAttempt | DoubtAttempt | ReportReconciled,
    code: DeferredCode,
    now: datetime,
    *,
    counted: bool,
    retry_after: float | None = None,
) -> list[SendEvent]:
    """Tried again, unless its attempts are used up, or it has waited for a day. A wait that the provider asked for is no
    attempt, whatever was wrong with it."""
    # A short one, asked for again and again, would use up all attempts within seconds.
    at_fault, counted = counted, counted and retry_after is None
    assert send.connection is not None
    assert send.provider is not None
    assert send.mailbox is not None
    about = (command.send, send.user, send.owner)
    said = command.said if isinstance(command, ReportAttempt) else None
    since = None if counted else send.waiting_since or now
    over = send.counted + 1 >= retry.ATTEMPTS if counted else since is not None and now - since >= retry.LONGEST_WAIT
    if over:
        failed = AttemptFailed(*about, command.attempt, code, permanent=False, counted=counted, said=said)
        dead = SendDeadLettered(*about, code, command.attempt, send.connection, send.provider)
        return [failed, ended(send, dead)]
    failures = (send.counted if counted else send.waits) + 1
    scale = command.scale
    next_at = retry.next_try(
        command.send, failures, now, counted=counted, retry_after=retry_after, scale=scale, at_fault=at_fault
    )
    if since is not None:
        next_at = min(next_at, since + retry.LONGEST_WAIT)
    return [
        AttemptDeferred(
            *about,
            attempt=command.attempt,
            code=code,
            counted=counted,
            next_at=next_at,
            overdue_at=retry.overdue_at(next_at, now, scale),
            connection=send.connection,
            provider=send.provider,
            mailbox=send.mailbox,
            since=since,
            said=said,
        )
    ]


# ── in doubt ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _doubt(send: Send, command: DoubtAttempt, now: datetime) -> list[SendEvent]:
    if command.attempt != send.attempt or send.due is None or now < send.due:
        return []
    if send.state == "in_doubt":
        return [_uncertain(send, command.send, command.attempt)]
    if send.state != "sending":
        return []
    if not send.touched:
        # Its worker had nothing on record that could send the mail, and nothing may leave before that is on record.
        return _deferred(send, command, "worker_lost", now, counted=True)
    return _in_doubt(send, command, "worker_lost", now)


def _in_doubt(send: Send, command: ReportAttempt | DoubtAttempt, code: InDoubtCode, now: datetime) -> list[SendEvent]:
    assert send.connection is not None
    assert send.provider is not None
    assert send.mailbox is not None
    # Until its deadline the worker, or what it sent, may still be under way.
    look_at = max(now, send.due) if send.due is not None else now
    doubt = AttemptInDoubt(
        command.send,
        send.user,
        send.owner,
        attempt=command.attempt,
        code=code,
        look_at=look_at,
        until=retry.doubt_until(look_at, command.scale),
        message_id=send.message_id,
        connection=send.connection,
        provider=send.provider,
        mailbox=send.mailbox,
        draft=send.draft,
        draft_message=send.draft_message,
        said=command.said if isinstance(command, ReportAttempt) else None,
    )
    if send.provider == "smtp":  # it can't be asked
        return [doubt, SendUncertain(command.send, send.user, send.owner, command.attempt, code)]
    return [doubt]


def _reconciled(send: Send, command: ReportReconciled, now: datetime) -> list[SendEvent]:
    if command.found == "proven_sent":
        # As true as the provider's own answer, whatever we have come to think since the provider was asked.
        if send.state == "sent" or not 0 < command.attempt <= send.attempt:
            return []
        assert send.connection is not None
        assert send.provider is not None
        about = (command.send, send.user, send.owner)
        sent = SendSent(
            *about,
            send.connection,
            send.provider,
            command.attempt,
            "look",
            command.provider_message_id,
            command.thread_id,
        )
        return [AttemptSucceeded(*about, command.attempt), sent]
    if command.attempt != send.attempt or send.state != "in_doubt":
        return []
    if command.found == "proven_absent":
        return _deferred(send, command, "proven_absent", now, counted=True)
    return [_uncertain(send, command.send, command.attempt)]


def ended(
    send: Send, event: SendFailed | SendDeadLettered | SendCancelled
) -> SendFailed | SendDeadLettered | SendCancelled | SendUncertain:
    """An end which says that the mail did not go out; or, where an attempt before the last redrive may have sent it, that."""
    return _uncertain(send, event.send, send.attempt) if send.uncertain else event


def _uncertain(send: Send, name: str, attempt: int) -> SendUncertain:
    return SendUncertain(name, send.user, send.owner, attempt, send.doubt or "worker_lost")
