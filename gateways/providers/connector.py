"""What every provider has to be able to do, so that a mailbox of it can be connected and stays so.

One class for each provider; `docs/add-a-provider.md` says how to add one, and `tests/gateways/providers/contract.py` what it
has to stand.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, OwnServers, Refreshed, Revoked, Secrets

ConnectCode = Literal[
    "access_denied",
    "provider_refused",
    "provider_unavailable",
    "code_refused",
    "identity_unknown",
    "id_token_invalid",
    "no_refresh_token",
    "client_broken",
    "issuer_mismatch",
    "login_failed",
    "host_not_allowed",
]


class ConnectFailed(Exception):
    """Nothing was connected. `code` is for machines and `sentence` for people; neither says anything the provider wrote."""

    def __init__(self, code: ConnectCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class LoginRefused(Exception):
    """The provider does not take these secrets: an access token that has expired, was revoked, or a wrong password."""


class ProviderUnavailable(Exception):
    """The provider gave no usable answer this time. `retry_after`: seconds it asked us to wait."""

    def __init__(self, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user is sent to a provider with. `verifier` is PKCE's (RFC 7636), `nonce` the ID token's."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str
    login_hint: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose mailbox it is. `subject` is issuer and subject of the ID token, where there is one."""

    address: str
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """What consent led to. Scopes as the provider spells them; `calls` is what the fresh token was used for already."""

    secrets: Secrets
    identity: Identity
    scopes: list[str]
    asked_scopes: list[str]
    calls: tuple[Literal["profile", "login"], ...] = ()


class Connector(Protocol):
    """One provider. `servers` are those of an `smtp` connection by XOAUTH2, None for the others."""

    @property
    def provider(self) -> Provider: ...

    @property
    def ready(self) -> bool:
        """Whether this installation has a client there; without one nobody can be sent to consent."""
        ...

    def consent_url(self, consent: Consent, servers: OwnServers | None = None) -> str:
        """Where the user's browser goes. Raises ConnectFailed where there is no client."""
        ...

    async def connect(self, consent: Consent, code: str, issuer: str | None, servers: OwnServers | None) -> Granted:
        """Trades the code of a callback for tokens, and finds out whose they are. Raises ConnectFailed.

        `issuer` is the callback's `iss` (RFC 9207).
        """
        ...

    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed:
        """Asks for a new access token; every outcome is an answer, none is an exception."""
        ...

    async def revoke(self, secrets: Secrets) -> Revoked:
        """Has the provider declare the tokens void; every outcome is an answer."""
        ...

    async def address(self, secrets: Secrets) -> str:
        """Asks, with the access token or the password, whose mailbox this is. Raises LoginRefused or ProviderUnavailable."""
        ...
