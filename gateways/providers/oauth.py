"""The OAuth client of all providers: consent with PKCE, code for tokens, new tokens for old (RFC 6749, 7636, 7009).

What is sent is put together by Authlib, and goes out by `calls.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7009.parameters import prepare_revoke_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from yarl import URL

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, Refreshed, Revoked, Secrets
from gateways.providers.calls import Answer, CallFailed, Calls
from gateways.providers.connector import ConnectCode, ConnectFailed, Consent
from gateways.providers.oauth_answers import Tokens, not_reached, tokens, why_not

SENTENCES: Final[dict[ConnectCode, str]] = {
    "code_refused": "The provider did not accept the code: it was used already, has lapsed, or is another browser's.",
    "client_broken": "The provider does not accept our own client; nobody can connect until an operator has seen to it.",
    "provider_refused": "The provider refused to give tokens.",
    "provider_unavailable": "The provider gave no usable answer; try again in a while.",
    "no_refresh_token": "The provider gave access for an hour only; connect once more and grant all that is asked.",
}


def failed(code: ConnectCode) -> ConnectFailed:
    """The failure of a connect that has one sentence for all providers."""
    return ConnectFailed(code, SENTENCES[code])


@dataclass(frozen=True, slots=True)
class Client:
    """A client at an authorization server. `guarded`: a user named that server. `names_scopes`: on each refresh, too."""

    provider: Provider
    client_id: str
    client_secret: str | None = field(repr=False)
    authorize_url: URL
    token_url: URL
    scopes: Sequence[str]
    guarded: bool = False
    names_scopes: bool = True


class OAuth:
    """What can be asked of an authorization server by one client of it."""

    def __init__(self, calls: Calls, client: Client) -> None:
        self._calls = calls
        self._client = client

    def consent_url(self, consent: Consent, more: Mapping[str, str], *, nonce: bool = True) -> str:
        """Where the user's browser goes; `more` are parameters of this provider alone.

        `prompt=consent` even where somebody has consented before: Google then gives no refresh token otherwise, nor do
        servers that go by OpenID Connect, 11, grant `offline_access`.
        """
        url: str = prepare_grant_uri(
            str(self._client.authorize_url),
            self._client.client_id,
            "code",
            consent.redirect_uri,
            " ".join(self._client.scopes),
            consent.state,
            nonce=consent.nonce if nonce else None,
            code_challenge=create_s256_code_challenge(consent.verifier),
            code_challenge_method="S256",
            prompt="consent",
            login_hint=consent.login_hint,
            **more,
        )
        return url

    async def exchange(self, consent: Consent, code: str) -> Tokens:
        """The tokens for a code, a refresh token among them. Raises ConnectFailed."""
        form = prepare_token_request(
            "authorization_code", "", consent.redirect_uri, code=code, code_verifier=consent.verifier
        )
        try:
            asked_at = datetime.now(UTC)
            answer = await self._ask("code", form)
            if (refusal := why_not(answer)) is not None:
                raise failed(_of_code(refusal))
            found = tokens(answer, asked_at)
        except CallFailed:
            raise failed("provider_unavailable") from None
        if found.refresh_token is None:
            raise failed("no_refresh_token")
        return found

    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed:
        """New tokens for a refresh token. The old one is kept where no other comes."""
        if secrets.refresh_token is None:
            return NotRefreshed("invalid_grant", "invalid_grant")
        form = prepare_token_request("refresh_token", "", refresh_token=secrets.refresh_token, **self._scopes())
        try:
            asked_at = datetime.now(UTC)
            answer = await self._ask("refresh", form)
            return why_not(answer) or _refreshed(secrets, tokens(answer, asked_at))
        except CallFailed as failure:
            return not_reached(failure)

    async def revoke(self, url: URL, token: str, *, as_client: bool) -> Revoked:
        """Has a token declared void. One that the provider doesn't know (any more) is void."""
        form, _ = prepare_revoke_token_request(token, "refresh_token" if as_client else None)
        form = self._authenticated(form) if as_client else form
        try:
            answer = await self._calls.post(
                self._client.provider, "revoke", url, form, guarded=self._client.guarded, expects_json=False
            )
        except CallFailed as failure:
            return Revoked("failed", failure.code)
        if answer.ok or (answer.body or {}).get("error") == "invalid_token":
            return Revoked("done")
        refusal = why_not(answer)
        return Revoked("failed", refusal.code if refusal and refusal.code != "invalid_grant" else "refused")

    async def _ask(self, operation: str, form: str) -> Answer:
        client = self._client
        return await self._calls.post(
            client.provider, operation, client.token_url, self._authenticated(form), guarded=client.guarded
        )

    def _authenticated(self, form: str) -> str:
        """With the client's id and secret in the form: all who may call themselves a provider here take that."""
        client = self._client
        method = "client_secret_post" if client.client_secret else "none"
        proof = ClientAuth(client.client_id, client.client_secret, method)
        _, _, body = proof.prepare("POST", str(client.token_url), {}, form)
        return str(body)

    def _scopes(self) -> dict[str, Any]:
        """Microsoft refuses some refreshes without them (AADSTS900144); Google gives all that were granted."""
        return {"scope": " ".join(self._client.scopes)} if self._client.names_scopes else {}


def _refreshed(before: Secrets, found: Tokens) -> Refreshed:
    token = found.refresh_token or before.refresh_token
    after = replace(before, access_token=found.access_token, refresh_token=token, expires_at=found.expires_at)
    return Refreshed(after, rotated=token != before.refresh_token)


def _of_code(refusal: NotRefreshed) -> ConnectCode:
    if refusal.failure == "invalid_grant":
        return "code_refused"
    if refusal.failure == "client_broken":
        return "client_broken"
    return "provider_refused" if refusal.code == "refused" else "provider_unavailable"
