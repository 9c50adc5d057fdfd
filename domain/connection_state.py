"""What the fold of `connection.events` knows: one document for each user, and how each event changes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from domain.connection_events import (
    ConnectionAuthorised,
    ConnectionCommandRefused,
    ConnectionEvent,
    ConnectionRefused,
    ConnectionRestored,
    ConnectionRevoked,
    KeyRotated,
    Provider,
    ReauthCode,
    ReauthorisationRequired,
    RevocationRequested,
    RevokedBy,
    TokenRefreshed,
    TokenRefreshFailed,
    TokenUsed,
    UserClosed,
)
from domain.fields import Digest


@dataclass(frozen=True, slots=True)
class Connection:
    """One that is not revoked yet. `revoked_by`: it is being revoked, and not used any more.

    `required`: why only the user can mend it, while that is so.
    """

    owner: str
    provider: Provider
    account_digest: Digest
    subject_digest: Digest | None
    version: int
    state: Literal["active", "reauth_required", "revoking"] = "active"
    failures: int = 0
    revoked_by: RevokedBy | None = None
    required: ReauthCode | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A user's connections by their ids; `closed` where the user was deleted."""

    connections: dict[str, Connection] = field(default_factory=dict)
    closed: bool = False


Document = User
Key = tuple[str, str]
Documents = Mapping[Key, Document | None]


def touches(event: ConnectionEvent) -> list[Key]:
    """The documents that folding this event changes."""
    match event:
        case KeyRotated() | ConnectionRefused() | ConnectionCommandRefused() | TokenUsed():
            return []
        case _:
            return [("user", event.user)]


def evolve(documents: Documents, event: ConnectionEvent) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it."""
    if not touches(event) or isinstance(event, KeyRotated):
        return {}
    key = ("user", event.user)
    user = documents.get(key) or User()
    if isinstance(event, UserClosed):
        return {key: replace(user, closed=True)}
    if isinstance(event, ConnectionRefused | ConnectionCommandRefused | TokenUsed):
        return {}
    known = _evolved(user.connections.get(event.connection), event)
    others = {connection: other for connection, other in user.connections.items() if connection != event.connection}
    return {key: replace(user, connections={**others, event.connection: known} if known else others)}


def _evolved(
    known: Connection | None,
    event: ConnectionAuthorised
    | TokenRefreshed
    | TokenRefreshFailed
    | ReauthorisationRequired
    | ConnectionRestored
    | RevocationRequested
    | ConnectionRevoked,
) -> Connection | None:
    """The connection as it is after the event; None where there is none any more."""
    if isinstance(event, ConnectionAuthorised):
        version = max(event.token.version, known.version if known else 0)
        subject = event.subject_digest or (known.subject_digest if known else None)
        return Connection(event.owner, event.provider, event.account_digest, subject, version)
    if known is None:
        return None
    changed: Connection | None = None
    match event:
        case TokenRefreshed():
            changed = replace(known, version=event.version, failures=0)
            if not event.refused_at_calls:
                changed = replace(changed, state="active", required=None)
        case TokenRefreshFailed():
            changed = replace(known, failures=known.failures + 1)
        case ReauthorisationRequired():
            # The token that was refused may be one whose refreshing is reported only later: no news by then.
            version = max(known.version, event.version)
            changed = replace(known, state="reauth_required", version=version, required=event.code)
        case ConnectionRestored():
            changed = replace(known, state="active", required=None)
        case RevocationRequested():
            changed = replace(known, state="revoking", revoked_by=event.by)
        case ConnectionRevoked():
            changed = None
        case _:
            assert_never(event)
    return changed
