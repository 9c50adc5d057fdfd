"""Outlook, by Microsoft Entra's OAuth (learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from yarl import URL

from domain.connection_events import Provider
from domain.tokens import Revoked, Secrets
from gateways.providers.calls import Calls
from gateways.providers.id_tokens import GUID, TENANT, Issuer
from gateways.providers.oauth import Client
from gateways.providers.openid import OpenIdConnector, mail_address

LOGIN: Final = URL("https://login.microsoftonline.com")
#: Without it Graph does not say whose mailbox a token is for.
SEES_PROFILE: Final = "User.Read"
#: The tenant of all personal accounts.
CONSUMERS: Final = "9188040d-6c67-4c5b-b112-36a304b66dad"


class MicrosoftConnector(OpenIdConnector):
    """Connects Outlook. Each refresh brings another refresh token, and Microsoft has no endpoint to revoke one."""

    provider: ClassVar[Provider] = "outlook"
    name = "Microsoft"
    parameters: ClassVar[Mapping[str, str]] = {"response_mode": "query"}

    def __init__(
        self, calls: Calls, client: Client, *, issuer: str, jwks_url: URL, revoke_url: URL | None, graph: URL
    ) -> None:
        super().__init__(calls, client, Issuer(issuer), jwks_url, graph / "me")
        self._revoke_url = revoke_url

    async def revoke(self, secrets: Secrets) -> Revoked:
        """Nothing, unless the operator has set an endpoint for it (RFC 7009)."""
        token = secrets.refresh_token or secrets.access_token
        if self._revoke_url is None or token is None:
            return Revoked("none")
        return await self._oauth.revoke(self._revoke_url, token, as_client=True)

    def address_in_claims(self, claims: Mapping[str, Any]) -> str | None:
        """For people to read only: a tenant writes there what it likes. Issuer and subject say who it is."""
        return mail_address(claims.get("email")) or mail_address(claims.get("preferred_username"))

    def address_in_profile(self, profile: Mapping[str, Any]) -> str | None:
        return mail_address(profile.get("mail")) or mail_address(profile.get("userPrincipalName"))


def endpoint(tenant: str, path: str) -> URL:
    """One of the endpoints of a tenant, such as `oauth2/v2.0/token`."""
    return LOGIN / tenant / path


def issuer_of(tenant: str) -> str:
    """Who signs for a tenant. Under a name that is no tenant's id, such as `common`, the token says which one it is from."""
    one = CONSUMERS if tenant == "consumers" else tenant
    return f"{LOGIN}/{one if GUID.fullmatch(one) else TENANT}/v2.0"
