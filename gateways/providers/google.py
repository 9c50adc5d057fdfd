"""Gmail, by Google's OAuth (developers.google.com/identity/protocols/oauth2/web-server)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from yarl import URL

from domain.connection_events import Provider
from domain.tokens import Revoked, Secrets
from gateways.providers.calls import Calls
from gateways.providers.id_tokens import Issuer
from gateways.providers.oauth import Client
from gateways.providers.openid import OpenIdConnector, mail_address

ISSUER: Final = "https://accounts.google.com"
#: Google's ID tokens have named their issuer in both ways.
BARE_ISSUER: Final = "accounts.google.com"
PROFILE: Final = "gmail/v1/users/me/profile"


class GoogleConnector(OpenIdConnector):
    """Connects Gmail. The refresh token stays the same for months; revoking it ends all that was granted with it."""

    provider: ClassVar[Provider] = "gmail"
    name = "Google"
    #: `include_granted_scopes`: what the user granted us before is not asked for again.
    parameters: ClassVar[Mapping[str, str]] = {"access_type": "offline", "include_granted_scopes": "true"}

    def __init__(self, calls: Calls, client: Client, *, issuer: str, jwks_url: URL, revoke_url: URL, api: URL) -> None:
        spelled = frozenset({BARE_ISSUER}) if issuer == ISSUER else frozenset[str]()
        super().__init__(calls, client, Issuer(issuer, spelled), jwks_url, api / PROFILE)
        self._revoke_url = revoke_url

    async def revoke(self, secrets: Secrets) -> Revoked:
        """Has Google declare the tokens void; one it doesn't know any more is void."""
        token = secrets.refresh_token or secrets.access_token
        if token is None:
            return Revoked("none")
        return await self._oauth.revoke(self._revoke_url, token, as_client=False)

    def address_in_claims(self, claims: Mapping[str, Any]) -> str | None:
        """The address, where Google has seen for itself that it is the user's."""
        verified = claims.get("email_verified")
        return mail_address(claims.get("email")) if verified is True or verified == "true" else None

    def address_in_profile(self, profile: Mapping[str, Any]) -> str | None:
        return mail_address(profile.get("emailAddress"))
