"""All connectors of one process, made from an installation's settings."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from yarl import URL

from domain.connection_events import Provider
from domain.provider_scopes import DEFAULT_SCOPES
from gateways.providers.calls import Calls
from gateways.providers.connector import Connector
from gateways.providers.egress import Egress
from gateways.providers.gmail_sending import GmailSending
from gateways.providers.google import GoogleConnector
from gateways.providers.graph_sending import GraphSending
from gateways.providers.mail_login import MailLogins
from gateways.providers.measures import ProviderMeasures
from gateways.providers.microsoft import SEES_PROFILE, MicrosoftConnector, endpoint, issuer_of
from gateways.providers.oauth import Client
from gateways.providers.sending import SendsMail
from gateways.providers.smtp_imap import SmtpImapConnector
from gateways.providers.smtp_sending import SmtpSending


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What an installation says of its providers; the fields are named as in `gateways/settings.py`.

    `provider_timeout` is in seconds. Of Microsoft's URLs and its issuer, an empty one is that of the tenant at
    login.microsoftonline.com; there is no such revoke_url. `tls` is whose certificates of servers that users name are
    trusted, by default those this machine trusts.
    """

    google_client_id: str
    google_client_secret: str | None = field(repr=False)
    google_authorize_url: str
    google_token_url: str
    google_revoke_url: str
    google_jwks_url: str
    google_issuer: str
    google_api_url: str
    microsoft_client_id: str
    microsoft_client_secret: str | None = field(repr=False)
    microsoft_tenant: str
    microsoft_authorize_url: str
    microsoft_token_url: str
    microsoft_revoke_url: str
    microsoft_jwks_url: str
    microsoft_issuer: str
    microsoft_graph_url: str
    provider_timeout: float
    allow_private_hosts: bool
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Connectors:
    """Every provider's connector; `smtp` again by its own type, for logins by password. `senders`: how each sends mail."""

    by_provider: dict[Provider, Connector]
    smtp: SmtpImapConnector
    senders: dict[Provider, SendsMail]


@asynccontextmanager
async def connectors(settings: ProviderSettings, registry: CollectorRegistry) -> AsyncIterator[Connectors]:
    """The connectors, until the block ends. What they count goes to the registry."""
    measures, seconds = ProviderMeasures(registry), settings.provider_timeout
    egress, tls = Egress(settings.allow_private_hosts), settings.tls or ssl.create_default_context()
    async with Calls.opened(egress, measures, tls, seconds) as calls:
        smtp = SmtpImapConnector(calls, egress, MailLogins(egress, measures, tls, seconds))
        senders: dict[Provider, SendsMail] = {
            "gmail": GmailSending(calls, URL(settings.google_api_url)),
            "outlook": GraphSending(calls, egress, URL(settings.microsoft_graph_url)),
            "smtp": SmtpSending(egress, measures, tls, seconds),
        }
        yield Connectors(
            {"gmail": _google(settings, calls), "outlook": _microsoft(settings, calls), "smtp": smtp}, smtp, senders
        )


def _google(settings: ProviderSettings, calls: Calls) -> GoogleConnector:
    client = Client(
        "gmail",
        settings.google_client_id,
        settings.google_client_secret,
        URL(settings.google_authorize_url),
        URL(settings.google_token_url),
        DEFAULT_SCOPES["gmail"],
        names_scopes=False,
    )
    return GoogleConnector(
        calls,
        client,
        issuer=settings.google_issuer,
        jwks_url=URL(settings.google_jwks_url),
        revoke_url=URL(settings.google_revoke_url),
        api=URL(settings.google_api_url),
    )


def _microsoft(settings: ProviderSettings, calls: Calls) -> MicrosoftConnector:
    tenant = settings.microsoft_tenant
    client = Client(
        "outlook",
        settings.microsoft_client_id,
        settings.microsoft_client_secret,
        _url_or(settings.microsoft_authorize_url, tenant, "oauth2/v2.0/authorize"),
        _url_or(settings.microsoft_token_url, tenant, "oauth2/v2.0/token"),
        (*DEFAULT_SCOPES["outlook"], SEES_PROFILE),
    )
    return MicrosoftConnector(
        calls,
        client,
        issuer=settings.microsoft_issuer or issuer_of(tenant),
        jwks_url=_url_or(settings.microsoft_jwks_url, tenant, "discovery/v2.0/keys"),
        revoke_url=URL(settings.microsoft_revoke_url) if settings.microsoft_revoke_url else None,
        graph=URL(settings.microsoft_graph_url),
    )


def _url_or(url: str, tenant: str, path: str) -> URL:
    return URL(url) if url else endpoint(tenant, path)
