"""What can be asked of a connection, keyed by its user."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.connection_events import (
    AtProvider,
    Auth,
    Call,
    Provider,
    ReauthCode,
    RefreshCode,
    RevokedBy,
    Token,
)
from domain.fields import Digest, Sealed


@dataclass(frozen=True, slots=True)
class AuthoriseConnection:
    """Connects a mailbox: the vault holds its tokens. `reconnects`: this very connection is to be renewed, by the same one.

    `asked_scopes` are what the provider was asked for, `scopes` what was granted, both as it spells them.
    """

    connection: str
    user: str
    owner: str
    provider: Provider
    auth: Auth
    account: Sealed
    account_digest: Digest
    subject_digest: Digest | None
    scopes: list[str]
    asked_scopes: list[str]
    token: Token
    reconnects: bool = False


@dataclass(frozen=True, slots=True)
class ReportRefresh:
    """What came of refreshing the token of version `version`.

    `token` comes with `refreshed`, `code` with the other outcomes. `retry_after`: seconds that the provider asked us to wait;
    `scale`: the factor on every wait of our own.
    """

    connection: str
    user: str
    version: int
    outcome: Literal["refreshed", "transient", "client_broken", "reauth_required"]
    asked_by: Literal["timer", "call"]
    token: Token | None = None
    rotated: bool = False
    code: RefreshCode | ReauthCode | None = None
    retry_after: float | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class RevokeConnection:
    connection: str
    user: str
    by: RevokedBy


@dataclass(frozen=True, slots=True)
class ReportRevocation:
    connection: str
    user: str
    at_provider: AtProvider
    cause: RefreshCode | None = None


@dataclass(frozen=True, slots=True)
class ReportUse:
    connection: str
    user: str
    calls: list[Call]


@dataclass(frozen=True, slots=True)
class ReportRotation:
    key: str
    rows: int
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class CloseUser:
    user: str


ConnectionCommand = (
    AuthoriseConnection | ReportRefresh | RevokeConnection | ReportRevocation | ReportUse | ReportRotation | CloseUser
)
