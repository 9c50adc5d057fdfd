"""The rules of a user's connections: whose mailbox may be connected, and what becomes of its tokens.

`decide(documents, command, now)` answers with events. One document holds what is known of a user; a user has few connections.
"""

from datetime import datetime
from typing import Final, Literal, assert_never, cast

from domain import provider_scopes, refresh
from domain.connection_commands import (
    AuthoriseConnection,
    CloseUser,
    ConnectionCommand,
    ReportRefresh,
    ReportRevocation,
    ReportRotation,
    ReportUse,
    RevokeConnection,
)
from domain.connection_events import (
    MOST_CONNECTIONS,
    ConnectionAuthorised,
    ConnectionCommandRefused,
    ConnectionEvent,
    ConnectionRefused,
    ConnectionRestored,
    ConnectionRevoked,
    KeyRotated,
    ReauthCode,
    ReauthorisationRequired,
    RefreshCode,
    RefusedBecause,
    RevocationRequested,
    TokenRefreshed,
    TokenRefreshFailed,
    TokenUsed,
    UserClosed,
)
from domain.connection_state import Connection, Documents, Key, User

#: Rotations of keys are decided in one place, under this key.
KEYS_KEY: Final = "keys"

CAUSES: Final[dict[ReauthCode, str]] = {
    "invalid_grant": "The provider no longer accepts the consent: it was withdrawn, has lapsed, or the password was changed.",
    "tokens_missing": "The tokens of this connection are no longer there.",
    "login_failed": "The mail server no longer accepts the user name and password.",
    "token_refused": "The provider refuses tokens that it has only just given.",
    "no_refresh_token": "The provider gave no token that outlasts the first hour.",
}

#: What a provider refused at calls, and so takes back by a call that it takes.
ENDED_BY_USE: Final[tuple[ReauthCode, ...]] = ("login_failed", "token_refused")


def needs(command: ConnectionCommand, key: str) -> list[Key]:
    """The documents a decision on this command reads; `key` is the key of its record."""
    return [] if isinstance(command, ReportRotation) else [("user", key)]


def decide(documents: Documents, command: ConnectionCommand, now: datetime) -> list[ConnectionEvent]:
    """What follows from this command, as things stand. `now` is the time of the input record, in UTC."""
    if isinstance(command, ReportRotation):
        return [KeyRotated(command.key, command.rows)]
    user = documents.get(("user", command.user)) or User()
    events: list[ConnectionEvent]
    match command:
        case AuthoriseConnection():
            events = [_authorise(user, command, now)]
        case ReportRefresh():
            events = _report_refresh(user, command, now)
        case RevokeConnection():
            events = [_revoke(user, command)]
        case ReportRevocation():
            events = _report_revocation(user, command)
        case ReportUse():
            events = _report_use(user, command)
        case CloseUser():
            events = _close(user, command)
        case _:
            assert_never(command)
    return events


def _authorise(user: User, command: AuthoriseConnection, now: datetime) -> ConnectionAuthorised | ConnectionRefused:
    missing = provider_scopes.missing(command.provider, command.asked_scopes, command.scopes)
    refused = _reason_to_refuse(user, command)
    if refused is not None:
        reason, of = refused
        return ConnectionRefused(command.connection, command.user, reason, of, missing)
    earlier = user.connections.get(command.connection)
    return ConnectionAuthorised(
        connection=command.connection,
        user=command.user,
        owner=command.owner,
        provider=command.provider,
        auth=command.auth,
        account=command.account,
        account_digest=command.account_digest,
        subject_digest=command.subject_digest,
        scopes=command.scopes,
        missing_scopes=missing,
        token=command.token,
        refresh_at=refresh.refresh_at(command.connection, command.token.version, now, command.token.expires_at),
        replaces=earlier.version if earlier else None,
    )


def _reason_to_refuse(user: User, command: AuthoriseConnection) -> tuple[RefusedBecause, str | None] | None:
    known = user.connections.get(command.connection)
    refused: tuple[RefusedBecause, str | None] | None = None
    if user.closed:
        refused = "user_deleted", None
    elif _is_not_there(known, command):
        refused = "unknown_connection", None
    elif known is not None and not _same_mailbox(known, command):
        refused = "another_mailbox", command.connection
    elif not provider_scopes.may_send(command.provider, command.scopes):
        refused = "scopes_missing", None
    elif known is None:
        other = _connection_of(user, command)
        if other is not None:
            refused = "already_connected", other
        elif len(user.connections) >= MOST_CONNECTIONS:
            refused = "too_many_connections", None
    return refused


def _is_not_there(known: Connection | None, command: AuthoriseConnection) -> bool:
    """What is to be renewed was never there, is another account's, or has been given up."""
    if known is None:
        return command.reconnects
    return known.state == "revoking" or known.owner != command.owner


def _same_mailbox(known: Connection, command: AuthoriseConnection) -> bool:
    """The address, and the identity behind it: an address can be given to somebody else."""
    subjects = {known.subject_digest, command.subject_digest} - {None}
    return known.provider == command.provider and known.account_digest == command.account_digest and len(subjects) < 2


def _connection_of(user: User, command: AuthoriseConnection) -> str | None:
    """The connection that this mailbox has already."""
    for connection, known in user.connections.items():
        same = known.provider == command.provider and known.account_digest == command.account_digest
        if same and known.state != "revoking":
            return connection
    return None


def _report_refresh(user: User, command: ReportRefresh, now: datetime) -> list[ConnectionEvent]:
    known = user.connections.get(command.connection)
    if known is None or known.state == "revoking":
        return []
    if command.outcome == "refreshed":
        return _refreshed(known, command, now)
    if known.state != "active" or command.version < known.version or command.code is None:
        return []
    if command.outcome == "reauth_required":
        code = cast("ReauthCode", command.code)
        return [ReauthorisationRequired(command.connection, command.user, code, CAUSES[code], command.version)]
    if command.code in CAUSES:
        raise ValueError(f"{command.code} is no failure that passes")
    next_at = refresh.next_try(
        command.connection,
        known.failures + 1,
        now,
        client_broken=command.outcome == "client_broken",
        retry_after=command.retry_after,
        scale=command.scale,
    )
    refused = cast("RefreshCode", command.code)
    return [TokenRefreshFailed(command.connection, command.user, command.outcome, refused, next_at, command.asked_by)]


def _refreshed(known: Connection, command: ReportRefresh, now: datetime) -> list[ConnectionEvent]:
    token = command.token
    if token is None or token.version <= known.version:
        return []
    return [
        TokenRefreshed(
            connection=command.connection,
            user=command.user,
            fingerprint=token.fingerprint,
            version=token.version,
            expires_at=token.expires_at,
            rotated=command.rotated,
            refresh_at=refresh.refresh_at(command.connection, token.version, now, token.expires_at),
            asked_by=command.asked_by,
            refused_at_calls=known.required == "token_refused",
        )
    ]


def _revoke(user: User, command: RevokeConnection) -> RevocationRequested | ConnectionCommandRefused:
    known = user.connections.get(command.connection)
    if known is None or known.state == "revoking":
        reason: Literal["unknown", "already"] = "already" if known else "unknown"
        return ConnectionCommandRefused("RevokeConnection", command.connection, command.user, reason)
    return RevocationRequested(command.connection, command.user, command.by)


def _report_revocation(user: User, command: ReportRevocation) -> list[ConnectionEvent]:
    known = user.connections.get(command.connection)
    if known is None or known.revoked_by is None:
        return []
    return [ConnectionRevoked(command.connection, command.user, known.revoked_by, command.at_provider, command.cause)]


def _report_use(user: User, command: ReportUse) -> list[ConnectionEvent]:
    known = user.connections.get(command.connection)
    if known is None or not command.calls:
        return []
    used = TokenUsed(command.connection, command.user, command.calls)
    if known.state == "reauth_required" and known.required in ENDED_BY_USE and command.calls[-1].outcome == "ok":
        return [used, ConnectionRestored(command.connection, command.user, known.required)]
    return [used]


def _close(user: User, command: CloseUser) -> list[ConnectionEvent]:
    if user.closed:
        return []
    live = [connection for connection, known in user.connections.items() if known.state != "revoking"]
    requests = [RevocationRequested(connection, command.user, "user_deleted") for connection in live]
    return [*requests, UserClosed(command.user)]
