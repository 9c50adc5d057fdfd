"""Mailboxes on servers of somebody's own, by password or by XOAUTH2: whatever a user named is reached by the guard only."""

from collections.abc import Mapping
from typing import Final

from yarl import URL

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, OAuthClient, OwnServers, Refreshed, Revoked, Secrets
from gateways.providers.calls import Calls
from gateways.providers.connector import (
    ConnectFailed,
    Consent,
    Granted,
    Identity,
    LoginRefused,
    ProviderUnavailable,
)
from gateways.providers.egress import Egress
from gateways.providers.hosts import HostNotAllowed
from gateways.providers.mail_login import MailLogins
from gateways.providers.oauth import Client, OAuth

NO_OAUTH: Final = "This mailbox names no authorization server to consent at."
OTHER_ISSUER: Final = "The answer came from another issuer than the one that was asked."
NO_PARAMETERS: Final[Mapping[str, str]] = {}


class SmtpImapConnector:
    """Connects any SMTP and IMAP server. All it needs to know comes with the connection, so it is always ready."""

    provider: Provider = "smtp"
    ready = True

    def __init__(self, calls: Calls, egress: Egress, logins: MailLogins) -> None:
        self._calls = calls
        self._egress = egress
        self._logins = logins

    async def login(self, servers: OwnServers, access_token: str | None = None) -> None:
        """Logs in to both servers, by the token or, without one, by their passwords. Raises ConnectFailed."""
        await self._logins.log_in(servers, access_token)

    def consent_url(self, consent: Consent, servers: OwnServers | None = None) -> str:
        """Where the user's browser goes. Raises ConnectFailed where the user's own server may not be called."""
        client = self._client(servers)
        return OAuth(self._calls, client).consent_url(consent, NO_PARAMETERS, nonce="openid" in client.scopes)

    async def connect(self, consent: Consent, code: str, issuer: str | None, servers: OwnServers | None) -> Granted:
        """Trades a code for tokens, and logs in to both servers with them. Raises ConnectFailed."""
        client = self._client(servers)
        assert servers is not None
        # Nobody has told us this server's name as an issuer (RFC 9207): it has to live where users are sent to.
        if issuer is not None and not _same_origin(issuer, client.authorize_url):
            raise ConnectFailed("issuer_mismatch", OTHER_ISSUER)
        tokens = await OAuth(self._calls, client).exchange(consent, code)
        await self.login(servers, tokens.access_token)
        secrets = Secrets(tokens.access_token, tokens.refresh_token, tokens.expires_at, servers)
        asked = list(client.scopes)
        return Granted(secrets, Identity(servers.imap.username), tokens.scopes or asked, asked, ("login",))

    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed:
        """Asks for a new access token; a password is tried, as there is no other way to know that it still holds."""
        if secrets.servers is not None and secrets.servers.oauth is None:
            return await self._try_password(secrets)
        try:
            return await OAuth(self._calls, self._client(secrets.servers)).refresh(secrets)
        except ConnectFailed:
            return NotRefreshed("transient", "refused")

    async def revoke(self, secrets: Secrets) -> Revoked:
        """Nobody has told us where; destroying what we have is all that can be done."""
        del secrets
        return Revoked("none")

    async def address(self, secrets: Secrets) -> str:
        """Logs in to both servers, and gives the user's name there. Raises LoginRefused or ProviderUnavailable."""
        servers = secrets.servers
        if servers is None:
            raise LoginRefused(NO_OAUTH)
        try:
            await self.login(servers, None if servers.oauth is None else secrets.access_token or "-")
        except ConnectFailed as failure:
            refusal = LoginRefused if failure.code == "login_failed" else ProviderUnavailable
            raise refusal(failure.sentence) from None
        return servers.imap.username

    async def _try_password(self, secrets: Secrets) -> Refreshed | NotRefreshed:
        try:
            await self.address(secrets)
        except LoginRefused:
            return NotRefreshed("invalid_grant", "invalid_grant")
        except ProviderUnavailable:
            return NotRefreshed("transient", "unreachable")
        return Refreshed(secrets, rotated=False)

    def _client(self, servers: OwnServers | None) -> Client:
        if servers is None or servers.oauth is None:
            raise ConnectFailed("client_broken", NO_OAUTH)
        try:
            return _named_by_user(servers.oauth, self._egress)
        except HostNotAllowed as failure:
            raise ConnectFailed("host_not_allowed", f"The authorization server: {failure.sentence}") from None


def _named_by_user(named: OAuthClient, egress: Egress) -> Client:
    return Client(
        "smtp",
        named.client_id,
        named.client_secret,
        egress.checked_url(named.authorize_url),
        egress.checked_url(named.token_url),
        named.scopes,
        guarded=True,
    )


def _same_origin(issuer: str, url: URL) -> bool:
    try:
        return URL(issuer).origin() == url.origin()
    except ValueError:
        return False
