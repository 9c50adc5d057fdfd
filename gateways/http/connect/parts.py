"""What connecting is made of; `main` makes it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from domain.connection_events import Provider
from gateways.http.connect.cookies import Cookies
from gateways.http.connect.return_urls import ReturnUrls
from gateways.log.use_reports import UseReports
from gateways.providers.catalogue import Connectors
from gateways.providers.connector import Consent
from gateways.stores.consents import Consents, Sessions, Tickets
from gateways.stores.vault import Vault


@dataclass(frozen=True)
class Connecting:
    """Everything behind the routes of connecting.

    `public_url` is where browsers find us, without a slash at its end. `return_urls` are where they may be sent back to.
    `allow_private_hosts`: mail servers may do without TLS.
    """

    vault: Vault
    connectors: Connectors
    tickets: Tickets
    consents: Consents
    sessions: Sessions
    uses: UseReports
    public_url: str
    return_urls: ReturnUrls
    allow_private_hosts: bool = False

    @property
    def cookies(self) -> Cookies:
        return Cookies(self.public_url)

    @property
    def root(self) -> str:
        """The path of the public URL, empty where it has none."""
        return urlsplit(self.public_url).path.rstrip("/")

    def callback(self, provider: Provider) -> str:
        """Where that provider sends browsers back to; its client there has to name it."""
        return f"{self.public_url}/v1/connect/{provider}/callback"

    @property
    def plain_origins(self) -> list[str]:
        """Where consent is at http, since an operator has put a server of their own in a provider's place."""
        origins = []
        for provider, connector in self.connectors.by_provider.items():
            if provider != "smtp" and connector.ready:
                url = urlsplit(connector.consent_url(Consent("-", "-", "-", self.callback(provider))))
                origins += [f"http://{url.netloc}"] if url.scheme == "http" else []
        return list(dict.fromkeys(origins))
