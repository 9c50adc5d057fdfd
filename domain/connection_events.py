"""What can happen to a connection, a user's own mailbox at a provider: the facts that `connection.events` keeps for ever.

None holds a token, a code or a password. A token is told by its fingerprint: an HMAC under an installation key, or random
bits where it is a password.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from domain.fields import Digest, Sealed

Provider = Literal["gmail", "outlook", "smtp"]
#: `oauth`: by tokens that are refreshed. `password`: by one that lasts until somebody changes it.
Auth = Literal["oauth", "password"]
#: Connections of one user that are not revoked.
MOST_CONNECTIONS: Final = 100

#: Why a connection needs its user again.
ReauthCode = Literal["invalid_grant", "tokens_missing", "login_failed", "token_refused", "no_refresh_token"]
#: Why a refresh has to be tried again: the provider, or our own client there.
RefreshFailure = Literal["transient", "client_broken"]
RefreshCode = Literal[
    "unreachable",
    "timed_out",
    "rate_limited",
    "server_error",
    "answer_unreadable",
    "answer_too_large",
    "invalid_client",
    "unauthorized_client",
    "client_secret_expired",
    "refused",
]
RefusedBecause = Literal[
    "another_mailbox",
    "scopes_missing",
    "already_connected",
    "too_many_connections",
    "unknown_connection",
    "user_deleted",
]
AtProvider = Literal["done", "failed", "none"]
RevokedBy = Literal["caller", "user_deleted", "operator", "erasure"]


@dataclass(frozen=True, slots=True)
class Token:
    """What is in the vault, without being it. `expires_at` is None for what does not expire by itself."""

    fingerprint: str
    version: int
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConnectionAuthorised:
    """A user's mailbox is connected, or connected anew: `replaces` is then the version of the token before."""

    connection: str
    user: str
    owner: str
    provider: Provider
    auth: Auth
    account: Sealed
    account_digest: Digest
    subject_digest: Digest | None
    scopes: list[str]
    missing_scopes: list[str]
    token: Token
    refresh_at: datetime | None
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionRefused:
    """Nothing was connected, and no connection has changed. `of` is the connection that is in the way."""

    connection: str
    user: str
    reason: RefusedBecause
    of: str | None = None
    missing_scopes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRefreshed:
    """The connection has a new access token. `rotated`: the provider gave a new refresh token, too.

    `refused_at_calls`: the provider has refused tokens that it had only just given, so one more makes nothing good.
    """

    connection: str
    user: str
    fingerprint: str
    version: int
    expires_at: datetime | None
    rotated: bool
    refresh_at: datetime | None
    asked_by: Literal["timer", "call"]
    refused_at_calls: bool = False


@dataclass(frozen=True, slots=True)
class TokenRefreshFailed:
    """No new token this time, and the connection is none the worse for it."""

    connection: str
    user: str
    failure: RefreshFailure
    code: RefreshCode
    next_at: datetime
    asked_by: Literal["timer", "call"]


@dataclass(frozen=True, slots=True)
class ReauthorisationRequired:
    """Only the user can mend this connection, by connecting the mailbox again. `cause` says why in plain words.

    What the provider refused when it was called it may take again: `connection.connection-restored.v1` says so.
    """

    connection: str
    user: str
    code: ReauthCode
    cause: str
    version: int


@dataclass(frozen=True, slots=True)
class ConnectionRestored:
    """The provider has taken what it refused before: nobody has to connect the mailbox again. `code` is what is over."""

    connection: str
    user: str
    code: ReauthCode


@dataclass(frozen=True, slots=True)
class RevocationRequested:
    """The connection is not used from now on; what is kept of it will be destroyed, here and at the provider."""

    connection: str
    user: str
    by: RevokedBy


@dataclass(frozen=True, slots=True)
class ConnectionRevoked:
    """Its tokens are gone from the vault. `at_provider`: whether they are void there as well, where that can be asked."""

    connection: str
    user: str
    by: RevokedBy
    at_provider: AtProvider
    cause: RefreshCode | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call to a provider with a connection's token: when, what for, in whose name, and how it ended.

    `by` is the part of us that called; `regarding` the id of what it was done for, such as a send's or the connection's own.
    """

    at: datetime
    operation: str
    by: str
    regarding: str
    outcome: Literal["ok", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class TokenUsed:
    """Calls that were made with the connection's token, the oldest first."""

    connection: str
    user: str
    calls: list[Call]


@dataclass(frozen=True, slots=True)
class KeyRotated:
    """Everything that was wrapped under other key-encryption keys is wrapped under this one: so many rows."""

    key: str
    rows: int


@dataclass(frozen=True, slots=True)
class UserClosed:
    """The user was deleted: nothing can be connected for them any more."""

    user: str


@dataclass(frozen=True, slots=True)
class ConnectionCommandRefused:
    """A command about a connection that could not be carried out as things stood; nothing changed."""

    command: Literal["RevokeConnection"]
    connection: str
    user: str
    reason: Literal["unknown", "already"]


ConnectionEvent = (
    ConnectionAuthorised
    | ConnectionRefused
    | TokenRefreshed
    | TokenRefreshFailed
    | ReauthorisationRequired
    | ConnectionRestored
    | RevocationRequested
    | ConnectionRevoked
    | TokenUsed
    | KeyRotated
    | UserClosed
    | ConnectionCommandRefused
)
