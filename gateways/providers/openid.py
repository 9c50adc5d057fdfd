"""What providers with OpenID Connect have in common: consent, tokens, and an ID token that says whose they are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from yarl import URL

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, OwnServers, Refreshed, Revoked, Secrets
from gateways.providers.calls import CallFailed, Calls
from gateways.providers.connector import (
    ConnectFailed,
    Consent,
    Granted,
    Identity,
    LoginRefused,
    ProviderUnavailable,
)
from gateways.providers.id_tokens import Claims, IdTokenInvalid, IdTokens, Issuer, Keys
from gateways.providers.oauth import Client, OAuth, failed
from gateways.providers.oauth_answers import Tokens

NO_CLIENT: Final = "This installation has no client at {}: an operator has to set one up."
OTHER_ISSUER: Final = "The answer came from another issuer than the one that was asked."
UNKNOWN: Final = "The provider did not say whose mailbox it is."
NOT_PROVED: Final = "The provider's word about who consented could not be trusted."
REFUSED: Final = "The provider does not accept the access token."
SILENT: Final = "The provider did not say whose mailbox this is."


class OpenIdConnector(ABC):
    """A connector (`connector.py`) for one such provider: a subclass says what is special about it."""

    provider: ClassVar[Provider]
    name: ClassVar[str]
    #: Parameters of consent that this provider alone knows.
    parameters: ClassVar[Mapping[str, str]]

    def __init__(self, calls: Calls, client: Client, issuer: Issuer, jwks_url: URL, profile_url: URL) -> None:
        self._calls = calls
        self._client = client
        self._oauth = OAuth(calls, client)
        self._issuer = issuer
        self._id_tokens = IdTokens(Keys(calls, self.provider, jwks_url), issuer, client.client_id)
        self._profile_url = profile_url

    @property
    def ready(self) -> bool:
        """Whether there is a client at the provider."""
        return bool(self._client.client_id)

    def consent_url(self, consent: Consent, servers: OwnServers | None = None) -> str:
        """Where the user's browser goes. Raises ConnectFailed where there is no client."""
        del servers
        self._check_ready()
        return self._oauth.consent_url(consent, self.parameters)

    async def connect(self, consent: Consent, code: str, issuer: str | None, servers: OwnServers | None) -> Granted:
        """Trades a code for tokens and finds out whose they are. Raises ConnectFailed."""
        del servers
        self._check_ready()
        if issuer is not None and not self._issuer.is_named(issuer):
            raise ConnectFailed("issuer_mismatch", OTHER_ISSUER)
        tokens = await self._oauth.exchange(consent, code)
        identity, calls = await self._identity(tokens, consent, issuer)
        secrets = Secrets(tokens.access_token, tokens.refresh_token, tokens.expires_at)
        asked = list(self._client.scopes)
        return Granted(secrets, identity, asked if tokens.scopes is None else tokens.scopes, asked, calls)

    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed:
        """Asks for a new access token; every outcome is an answer."""
        return await self._oauth.refresh(secrets)

    @abstractmethod
    async def revoke(self, secrets: Secrets) -> Revoked:
        """Has the provider declare the tokens void, where it can be asked to."""

    async def address(self, secrets: Secrets) -> str:
        """Asks the provider's own profile whose mailbox this is. Raises LoginRefused or ProviderUnavailable."""
        try:
            answer = await self._calls.get(self.provider, "profile", self._profile_url, secrets.access_token or "-")
        except CallFailed as failure:
            raise ProviderUnavailable(SILENT, failure.retry_after) from None
        if answer.status == 401:
            raise LoginRefused(REFUSED)
        found = self.address_in_profile(answer.body or {}) if answer.ok else None
        if found is None:
            raise ProviderUnavailable(SILENT)
        return found

    @abstractmethod
    def address_in_claims(self, claims: Mapping[str, Any]) -> str | None:
        """The address that an ID token vouches for."""

    @abstractmethod
    def address_in_profile(self, profile: Mapping[str, Any]) -> str | None:
        """The address that the provider's profile of the user has."""

    def _check_ready(self) -> None:
        if not self.ready:
            raise ConnectFailed("client_broken", NO_CLIENT.format(self.name))

    async def _identity(
        self, tokens: Tokens, consent: Consent, issuer: str | None
    ) -> tuple[Identity, tuple[Literal["profile"], ...]]:
        """Whose mailbox it is, and the calls that it took to find out."""
        claims = await self._claims(tokens, consent.nonce)
        if issuer is not None and not self._same_issuer(issuer, claims):
            raise ConnectFailed("issuer_mismatch", OTHER_ISSUER)
        # Issuer and subject stay when an address is changed, or is given to somebody else.
        subject = f"{claims.issuer} {claims.subject}"
        if (address := self.address_in_claims(claims.all)) is not None:
            return Identity(address, subject), ()
        try:
            return Identity(await self.address(Secrets(tokens.access_token)), subject), ("profile",)
        except (LoginRefused, ProviderUnavailable):
            raise ConnectFailed("identity_unknown", UNKNOWN) from None

    async def _claims(self, tokens: Tokens, nonce: str) -> Claims:
        if tokens.id_token is None:
            raise ConnectFailed("identity_unknown", UNKNOWN)
        try:
            return await self._id_tokens.judge(tokens.id_token, nonce)
        except IdTokenInvalid:
            raise ConnectFailed("id_token_invalid", NOT_PROVED) from None
        except CallFailed:
            raise failed("provider_unavailable") from None

    def _same_issuer(self, issuer: str, claims: Claims) -> bool:
        """A callback of one tenant does not go with an ID token of another."""
        return issuer == claims.issuer or issuer in self._issuer.also_spelled


def mail_address(value: object) -> str | None:
    """A mail address, or None for what is not even shaped like one."""
    if not isinstance(value, str) or len(value) > 254 or not value.isprintable() or " " in value:
        return None
    local, _, domain = value.rpartition("@")
    return value if local and domain else None
