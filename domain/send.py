"""The rules of a send: it is promised once, tried by one worker at a time, and never sent again before it is known that it
was not sent.

`decide(documents, command, now)` answers with events. Everything rests on two facts: no attempt is granted while another runs
or is in doubt, and an attempt in doubt is left only by proof. What one attempt left at the provider, a draft, is what the
next one sends.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final, Literal, assert_never

from domain import retry, send_attempts
from domain.send_choice import choose, is_live
from domain.send_commands import (
    CancelSend,
    ClaimAttempt,
    DoubtAttempt,
    MoveSend,
    NoteDraft,
    NoteTransmission,
    RedriveSend,
    ReportAttempt,
    ReportReconciled,
    RequestSend,
    SendCommand,
    StartSend,
    StopSend,
    WakeSend,
)
from domain.send_commands import KnownConnection as Known
from domain.send_events import (
    CancelledBy,
    NotDone,
    SendCancelled,
    SendCommandRefused,
    SendDispatched,
    SendEvent,
    SendFailed,
    SendMoved,
    SendRedriven,
    SendRefused,
    SendRepeated,
    SendRequested,
)
from domain.send_state import Documents, Key, Send, Taken

#: States in which nothing has gone out and nothing is under way.
WAITING: Final = ("scheduled", "queued", "deferred")
REDRIVEN: Final = ("failed", "dead_lettered", "uncertain")
#: Why a send is deferred that goes on as soon as its mailbox is connected again.
FOR_ACCESS: Final = ("reauth_required", "token_refused")


def needs(command: SendCommand, key: str) -> list[Key]:
    """The documents a decision on this command reads; `key` is the key of its record."""
    del key
    of_send = [("send", command.send)]
    if isinstance(command, RequestSend) and command.key:
        return [*of_send, ("key", command.key)]
    return of_send


def decide(  # noqa: PLR0911 - one return for each command
    documents: Documents, command: SendCommand, now: datetime
) -> list[SendEvent]:
    """What follows from this command, as things stand. `now` is the time of the input record, in UTC."""
    found = documents.get(("send", command.send))
    send = found if isinstance(found, Send) else None
    if isinstance(command, RequestSend):
        return _request(documents, send, command, now)
    if isinstance(command, MoveSend | CancelSend | RedriveSend):
        return _asked(send, command, now)
    if send is None:
        return send_attempts.of_nothing(command)
    match command:
        case StartSend():
            return _start(send, command, now)
        case WakeSend():
            return _wake(send, command, now)
        case StopSend():
            return _stop(send, command)
        case ClaimAttempt() | NoteDraft() | NoteTransmission() | ReportAttempt() | DoubtAttempt() | ReportReconciled():
            return send_attempts.decide(send, command, now)
        case _:
            assert_never(command)


def _request(documents: Documents, send: Send | None, command: RequestSend, now: datetime) -> list[SendEvent]:
    about = (command.send, command.user, command.owner)
    taken = documents.get(("key", command.key)) if command.key else None
    if isinstance(taken, Taken):
        if taken.body == command.body:
            return [SendRepeated(*about, taken.send)]
        return [SendRefused(*about, "idempotency_key_reused", taken.send)]
    if send is not None:  # the record came twice: its first decision stands
        return [SendRepeated(*about, command.send)]
    chosen = choose(command.connections, named=command.connection, preference=command.preference)
    if chosen is None:
        return [SendRefused(*about, "no_active_connection")]
    requested = SendRequested(
        *about,
        message_id=command.message_id,
        body=command.body,
        recipients=command.recipients,
        attachments=command.attachments,
        size=command.size,
        message=command.message,
        blob=command.blob,
        key=command.key,
        scheduled_at=command.scheduled_at,
        connection=command.connection,
        preference=command.preference,
        callback=command.callback,
    )
    if command.scheduled_at is not None:
        return [requested]
    return [requested, _dispatched(command, command, chosen, now)]


def _dispatched(
    command: RequestSend | StartSend | WakeSend | RedriveSend, of: RequestSend | Send, chosen: Known, now: datetime
) -> SendDispatched:
    dispatches = of.dispatches if isinstance(of, Send) else 0
    overdue = retry.overdue_at(now, now, command.scale, dispatches=dispatches)
    return SendDispatched(command.send, of.user, of.owner, chosen.connection, chosen.provider, chosen.mailbox, overdue)


def _again(send: Send, command: StartSend | WakeSend | RedriveSend, now: datetime) -> SendDispatched:
    """By the connection that it was dispatched to before."""
    assert send.connection is not None
    assert send.provider is not None
    assert send.mailbox is not None
    known = Known(send.connection, send.provider, send.mailbox, "active")
    return _dispatched(command, send, known, now)


# ── what people ask ───────────────────────────────────────────────────────────────────────────────────────────────────


def _asked(send: Send | None, command: MoveSend | CancelSend | RedriveSend, now: datetime) -> list[SendEvent]:
    if send is None or send.owner != command.owner:
        return [_refused(command, "unknown")]
    if isinstance(command, MoveSend):
        if send.state != "scheduled":
            return [_refused(command, "too_late")]
        return [SendMoved(command.send, send.user, send.owner, command.scheduled_at)]
    if isinstance(command, CancelSend):
        if send.state not in WAITING:
            return [_refused(command, "cancelled" if send.state == "cancelled" else "too_late")]
        return [send_attempts.ended(send, SendCancelled(command.send, send.user, send.owner, "caller"))]
    return _redrive(send, command, now)


def _redrive(send: Send, command: RedriveSend, now: datetime) -> list[SendEvent]:
    if send.state not in REDRIVEN:
        return [_refused(command, "sent" if send.state == "sent" else "not_ended")]
    if command.attempt not in (None, send.attempt):
        # Asked of an end that was tried again since: granted as well, one wish would send two mails.
        return [_refused(command, "not_ended")]
    redriven = SendRedriven(command.send, send.user, send.owner, command.by)
    send = replace(send, dispatches=0)
    if _is_bound(send):
        left = is_live(command.connections, send.connection)
        return [redriven, _again(send, command, now) if left else _failed(command.send, send, "connection_revoked")]
    chosen = _chosen(send, command.connections)
    if chosen is None:
        return [redriven, _failed(command.send, send, _without(send))]
    return [redriven, _dispatched(command, send, chosen, now)]


def _is_bound(send: Send) -> bool:
    """Whether something of it is, or may be, at the provider: then no other connection will do."""
    return send.connection is not None and (send.draft is not None or send.transmitted)


def _chosen(send: Send, connections: list[Known]) -> Known | None:
    return choose(connections, named=send.named, preference=send.preference, promised=True)


def _without(send: Send) -> Literal["no_active_connection", "connection_revoked"]:
    """Why there is no connection for it: the one that was named is no more, or there is none at all."""
    return "connection_revoked" if send.named else "no_active_connection"


def _refused(command: MoveSend | CancelSend | RedriveSend, reason: NotDone) -> SendCommandRefused:
    kind: Literal["MoveSend", "CancelSend", "RedriveSend"] = (
        "MoveSend"
        if isinstance(command, MoveSend)
        else "CancelSend"
        if isinstance(command, CancelSend)
        else "RedriveSend"
    )
    return SendCommandRefused(kind, command.send, command.user, reason)


# ── what time and connections bring ───────────────────────────────────────────────────────────────────────────────────


def _start(send: Send, command: StartSend, now: datetime) -> list[SendEvent]:
    """A timer compares nothing: whether it came in time, or for something that has gone on since, is told here."""
    if send.state not in WAITING or send.due is None or now < send.due:
        return []
    if send.state == "scheduled":
        chosen = _chosen(send, command.connections)
        if chosen is None:
            return [_failed(command.send, send, _without(send))]
        return [_dispatched(command, send, chosen, now)]
    # Whether its connection still is one is told by the vault, which is never behind.
    return [_again(send, command, now)]


def _wake(send: Send, command: WakeSend, now: datetime) -> list[SendEvent]:
    waits = send.state == "deferred" and send.waits_for in FOR_ACCESS
    return [_again(send, command, now)] if waits and send.connection == command.connection else []


def _stop(send: Send, command: StopSend) -> list[SendEvent]:
    by: CancelledBy = command.by
    if send.state == "scheduled":
        return [] if _chosen(send, command.connections) else [SendCancelled(command.send, send.user, send.owner, by)]
    if send.state in WAITING and send.connection == command.connection:
        return [_failed(command.send, send, "connection_revoked")]
    return []


def _failed(name: str, send: Send, code: Literal["no_active_connection", "connection_revoked"]) -> SendEvent:
    return send_attempts.ended(send, SendFailed(name, send.user, send.owner, code))
