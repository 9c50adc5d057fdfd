"""What the contract of connectors is tried in: one provider with everything around it, and eyes for its secrets."""

import base64
import logging
import re
import secrets as random
import ssl
import traceback
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from prometheus_client import CollectorRegistry

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, OwnServers, Refreshed, Secrets
from gateways.providers.catalogue import Connectors, ProviderSettings
from gateways.providers.connector import ConnectFailed, Connector, Consent, Granted
from tests.support.oauth_server.server import OAuthServer

CALLBACK = "https://postledger.example/v1/connect/callback"
CLIENT_ID, CLIENT_SECRET = "client-of-contract", "canary-client-secret-4f1b"
LOGIN = "alice@gmail.test"
SECONDS = 5.0
URL_SAFE = str.maketrans("+/", "-_")
#: Made once: reading all the authorities of a machine takes longer than most of these tests.
TRUSTING = ssl.create_default_context()


def settings_for(server: OAuthServer, **changes: Any) -> ProviderSettings:
    """An installation whose Google and Microsoft are both this server, with the client of the contract."""
    root = server.issuer
    whole = ProviderSettings(
        google_client_id=CLIENT_ID,
        google_client_secret=CLIENT_SECRET,
        google_authorize_url=server.authorize_url,
        google_token_url=server.token_url,
        google_revoke_url=server.revoke_url,
        google_jwks_url=server.jwks_url,
        google_issuer=root,
        google_api_url=root,
        microsoft_client_id=CLIENT_ID,
        microsoft_client_secret=CLIENT_SECRET,
        microsoft_tenant="common",
        microsoft_authorize_url=server.authorize_url,
        microsoft_token_url=server.token_url,
        microsoft_revoke_url="",
        microsoft_jwks_url=server.jwks_url,
        microsoft_issuer=root,
        microsoft_graph_url=f"{root}/v1.0",
        provider_timeout=SECONDS,
        allow_private_hosts=True,
        tls=TRUSTING,
    )
    return replace(whole, **changes)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged for a test: `caplog.text` alone knows of the phase that it is read in."""
    records = [record for phase in ("setup", "call", "teardown") for record in caplog.get_records(phase)]
    return "\n".join(f"{logging.Formatter().format(record)} {vars(record)}" for record in records)


def told_of(canaries: Iterable[str], told: str) -> list[str]:
    """Which of them are in a text, as they are or in base64, in which mail servers and headers are told secrets."""
    runs = re.findall(r"[\w+/-]{16,}={0,2}", told)
    decoded = [
        base64.urlsafe_b64decode(run.translate(URL_SAFE).rstrip("=") + "==").decode("latin-1")
        for run in runs
        if len(run.rstrip("=")) % 4 != 1
    ]
    whole = "\n".join([told, *decoded])
    return [canary for canary in canaries if canary in whole or canary.encode().decode("latin-1") in whole]


@dataclass
class House:
    """One provider with everything around it."""

    provider: Provider
    server: OAuthServer
    all: Connectors
    registry: CollectorRegistry
    servers: OwnServers | None = None
    canaries: set[str] = field(default_factory=lambda: {CLIENT_SECRET})
    said: list[str] = field(default_factory=list)

    @property
    def connector(self) -> Connector:
        return self.all.by_provider[self.provider]

    def consent(self, **changes: Any) -> Consent:
        made = Consent(
            f"canary-state-{random.token_hex(8)}",
            f"canary-nonce-{random.token_hex(8)}",
            f"canary-verifier-{random.token_urlsafe(48)}",
            CALLBACK,
            LOGIN,
        )
        consent = replace(made, **changes)
        # The state is in the address bar of the user, and so no secret of ours.
        self.canaries |= {consent.nonce, consent.verifier}
        return consent

    async def back(self, consent: Consent) -> dict[str, str]:
        """The user's way through the provider's pages: the parameters the browser comes back with."""
        arrived = await self.server.consent(self.connector.consent_url(consent, self.servers))
        assert arrived.startswith(consent.redirect_uri)
        found = dict(parse_qsl(urlsplit(arrived).query))
        assert found["state"] == consent.state
        self.canaries |= {found["code"]} if "code" in found else set()
        return found

    async def connect(self, consent: Consent | None = None) -> Granted:
        consent = consent or self.consent()
        back = await self.back(consent)
        granted = await self.connector.connect(consent, back["code"], back.get("iss"), self.servers)
        self.keep(granted.secrets)
        return granted

    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed:
        answer = await self.connector.refresh(secrets)
        self.said.append(repr(answer))
        if isinstance(answer, Refreshed):
            self.keep(answer.secrets)
        return answer

    def keep(self, secrets: Secrets) -> None:
        self.canaries |= {token for token in (secrets.access_token, secrets.refresh_token) if token}
        self.said.append(repr(secrets))

    async def fails(self, call: Awaitable[object]) -> ConnectFailed:
        """The failure that a call must end in; its words are kept for the canaries to be looked for."""
        with pytest.raises(ConnectFailed) as caught:
            await call
        self.note(caught.value)
        assert caught.value.sentence.endswith(".")
        return caught.value

    def note(self, error: BaseException) -> None:
        self.said += [repr(error), *traceback.format_exception(error)]

    def calls(self, operation: str, outcome: str) -> float:
        labels = {"provider": self.provider, "operation": operation, "outcome": outcome}
        return self.registry.get_sample_value("postledger_provider_calls_total", labels) or 0.0


def not_refreshed(answer: Refreshed | NotRefreshed) -> tuple[str, str]:
    assert isinstance(answer, NotRefreshed), answer
    return answer.failure, answer.code
