"""Lives of sends and connections in which everything comes up that a stream tells of, and much that it does not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from domain.connection_events import (
    Call,
    ConnectionRefused,
    ConnectionRestored,
    ConnectionRevoked,
    ReauthorisationRequired,
    RevocationRequested,
    TokenRefreshed,
    TokenRefreshFailed,
    TokenUsed,
)
from domain.fields import Digest, Sealed
from domain.send_events import (
    AttemptDeferred,
    AttemptFailed,
    AttemptInDoubt,
    AttemptStarted,
    AttemptSucceeded,
    SendCancelled,
    SendDeadLettered,
    SendDispatched,
    SendFailed,
    SendMoved,
    SendRedriven,
    SendRefused,
    SendRepeated,
    SendRequested,
    SendSent,
    SendUncertain,
)
from tests.support.connection_words import authorise, authorised

NOW: Final = datetime(2026, 3, 13, 15, 30, tzinfo=UTC)
LATER: Final = NOW + timedelta(hours=1)
LATER_TEXT: Final = "2026-03-13T16:30:00.000Z"

#: An event, and what a stream says of it beside whose it is and when: its type, its state, and more; None of nothing.
Told = tuple[Any, dict[str, str] | None]


def told(name: str, status: str, **more: str) -> dict[str, str]:
    return {"type": name, "status": status, **more}


def send_life(send: str, user: str, owner: str) -> list[Told]:
    """One send that meets with everything, as no rule would let it, and one that is asked for at once."""
    about, way = (send, user, owner), ("con_1", "gmail")
    started = AttemptStarted(*about, 1, "worker-1", LATER, "<1@x>", *way)
    by, mailbox = {"connectionId": "con_1"}, Digest("#ada")
    requested = SendRequested(*about, "<1@x>", Digest("#body"), 1, [], 100, message=Sealed("sealed"))
    deferred = AttemptDeferred(*about, 1, "unreachable", True, LATER, LATER, *way, mailbox)
    doubt = AttemptInDoubt(*about, 1, "timed_out", LATER, LATER, "<1@x>", *way, mailbox)
    return [
        (replace(requested, scheduled_at=LATER), told("send.requested", "scheduled", nextAttemptAt=LATER_TEXT)),
        (SendRepeated(*about, "snd_0"), None),
        (SendMoved(*about, LATER), told("send.moved", "scheduled", nextAttemptAt=LATER_TEXT)),
        (SendDispatched(*about, *way, mailbox, LATER), told("send.queued", "queued", **by)),
        (started, told("send.sending", "sending", **by)),
        (doubt, None),
        (deferred, told("send.deferred", "deferred", code="unreachable", nextAttemptAt=LATER_TEXT, **by)),
        (AttemptFailed(*about, 2, "message_refused", True), None),
        (SendFailed(*about, "message_refused"), told("send.failed", "failed", code="message_refused")),
        (SendRedriven(*about, "key_1"), told("send.redriven", "queued")),
        (SendUncertain(*about, 3, "timed_out"), told("send.uncertain", "uncertain", code="timed_out")),
        (
            SendDeadLettered(*about, "unreachable", 5, *way),
            told("send.dead_lettered", "dead_lettered", code="unreachable", **by),
        ),
        (SendCancelled(*about, "caller"), told("send.cancelled", "cancelled")),
        (SendCancelled(*about, "user_deleted"), told("send.cancelled", "cancelled", code="user_deleted")),
        (AttemptSucceeded(*about, 6), None),
        (SendSent(*about, *way, 6, "answer"), told("send.sent", "sent", **by)),
        (replace(requested, send=f"{send}b"), told("send.requested", "queued", messageId=f"{send}b")),
        (SendRefused(*about, "no_active_connection"), None),
    ]


def connection_life(connection: str, user: str, owner: str) -> list[Told]:
    """One connection that is broken and mended in both ways, and revoked."""
    about = (connection, user)
    command = authorise(connection, user=user, owner=owner)
    fresh = TokenRefreshed(*about, "#token", 2, LATER, False, LATER, "timer")
    broken = ReauthorisationRequired(*about, "invalid_grant", "The consent was withdrawn.", 2)
    refused = ReauthorisationRequired(*about, "token_refused", "The provider refuses what it gives.", 2)
    needs = told("connection.reauth_required", "reauth_required", code="invalid_grant")
    return [
        (authorised(command), told("connection.authorised", "active")),
        (fresh, None),
        (TokenUsed(*about, [Call(NOW, "send", "deliver", "snd_1", "ok")]), None),
        (TokenRefreshFailed(*about, "transient", "timed_out", LATER, "timer"), None),
        (broken, needs),
        (fresh, told("connection.restored", "active")),
        (fresh, None),
        (refused, told("connection.reauth_required", "reauth_required", code="token_refused")),
        (replace(fresh, refused_at_calls=True), None),
        (ConnectionRestored(*about, "token_refused"), told("connection.restored", "active")),
        (broken, needs),
        (authorised(command), told("connection.authorised", "active")),
        (ConnectionRefused(*about, "another_mailbox"), None),
        (fresh, None),
        (RevocationRequested(*about, "caller"), told("connection.revoked", "revoked")),
        (ConnectionRevoked(*about, "caller", "done"), None),
    ]
