"""What a connection keeps secret, and what a provider may say when it is asked for a new token.

Nothing here is ever written into the log. The secrets' `repr` shows none of them: it may end in a log line.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from domain.connection_events import AtProvider, RefreshCode


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server of somebody's own: where it is, and as whom to log in. `password` is None where a token is used."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    username: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A client at an authorization server of somebody's own, for `smtp` connections by XOAUTH2."""

    authorize_url: str
    token_url: str
    client_id: str
    client_secret: str | None = field(repr=False)
    scopes: list[str]


@dataclass(frozen=True, slots=True)
class OwnServers:
    """What an `smtp` connection is made of beside its tokens."""

    smtp: MailServer
    imap: MailServer
    oauth: OAuthClient | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """What lets us act for a mailbox: tokens, or passwords within `servers`. `expires_at`: the end of the access token."""

    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    servers: OwnServers | None = None


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The provider gave a new access token, and a new refresh token where `rotated`."""

    secrets: Secrets
    rotated: bool


@dataclass(frozen=True, slots=True)
class NotRefreshed:
    """The provider gave none. `invalid_grant`: it never will again for this refresh token. `retry_after` is in seconds."""

    failure: Literal["transient", "client_broken", "invalid_grant"]
    code: RefreshCode | Literal["invalid_grant"]
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """Whether the provider declared the tokens void; `none` where it can't be asked to."""

    at_provider: AtProvider
    cause: RefreshCode | None = None
