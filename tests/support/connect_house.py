"""The house with accounts to connect: an authorization server stands in for Google and Microsoft; a browser is at hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp
from prometheus_client import CollectorRegistry

from gateways.http.app import create_app
from gateways.http.connect.parts import Connecting
from gateways.http.connect.return_urls import ReturnUrls
from gateways.http.connect.routes import routes
from gateways.http.serving import server
from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.use_reports import UseReports
from gateways.providers.catalogue import ProviderSettings, connectors
from gateways.stores.consents import Consents, Sessions, Tickets
from gateways.stores.kms import LocalKeys
from gateways.stores.vault import Vault
from tests.support.connected import Person, person
from tests.support.http_house import HttpHouse, bearer, http_house
from tests.support.oauth_server.server import Client, OAuthServer

CLIENT_ID, CLIENT_SECRET = "client-of-connect", "canary-client-secret-8d21"
BACK = "https://app.example/settings/mail"


@dataclass
class ConnectHouse:
    """What tests ask; `url` is where API, page and callbacks answer, and what browsers know us by unless said otherwise."""

    inner: HttpHouse
    connecting: Connecting
    oauth: OAuthServer
    url: str

    @property
    def http(self) -> aiohttp.ClientSession:
        return self.inner.http

    async def person(self, **said: Any) -> Person:
        """A user of an account of their own."""
        account, key = await self.inner.account()
        return await person(self.inner, account, key, **said)

    async def begin(self, who: Person, provider: str | None = "gmail", *, key: str | None = None, **query: str) -> str:
        """The ticket's address, as the product gets it."""
        status, body = await self.asked_for_ticket(who.id, provider, key or who.key, **query)
        assert status == 200, body
        assert set(body) == {"url"}
        return str(body["url"])

    async def asked_for_ticket(
        self, user: str | None, provider: str | None, key: str | None, **query: str
    ) -> tuple[int, dict[str, Any]]:
        said = ({"userId": user} if user is not None else {}) | query
        path = f"/v1/connect/{provider}" if provider else "/v1/connect"
        headers = bearer(key) | {"Accept": "application/json"}
        async with self.http.get(f"{self.url}{path}?{urlencode(said)}", headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def connected(self, who: Person, provider: str = "gmail", *, login: str | None = None, **query: str) -> str:
        """The id of a connection by a whole consent."""
        said = await self.walk(who, provider, login=login, **query)
        assert said.get("status") == "connected", said
        return said["connectionId"]

    async def walk(
        self, who: Person, provider: str = "gmail", *, login: str | None = None, **query: str
    ) -> dict[str, str]:
        """A whole consent in a browser of its own, and what the product is told at its end."""
        browser = Browser(self)
        callback = await browser.to_callback(
            await self.begin(who, provider, **({"returnUrl": BACK} | query)), login=login
        )
        end = await browser.get(callback)
        assert (end.status, end.location.partition("?")[0]) == (303, BACK), end
        return {name: values[0] for name, values in parse_qs(urlsplit(end.location).query).items()}

    async def shown(self, who: Person, connection: str) -> dict[str, Any]:
        async with self.http.get(f"{self.url}/v1/connections/{connection}", headers=bearer(who.key)) as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    async def listed(self, who: Person) -> list[dict[str, Any]]:
        async with self.http.get(f"{self.url}/v1/connections?userId={who.id}", headers=bearer(who.key)) as answer:
            return list((await answer.json())["items"])

    async def token_calls(self) -> int:
        """Requests that the provider's token endpoint has seen."""
        return int((await self.oauth.counts())["requests"].get("token", 0))


@dataclass
class Page:
    """An answer as a browser sees it."""

    status: int
    headers: Any
    text: str

    @property
    def location(self) -> str:
        return str(self.headers.get("Location", ""))

    @property
    def cookies(self) -> dict[str, Morsel[str]]:
        """Those it sets, by name."""
        found: dict[str, Morsel[str]] = {}
        for header in self.headers.getall("Set-Cookie", []):
            found |= SimpleCookie(header)
        return found


class Browser:
    """A user's browser, as far as cookies go: it keeps them by path, and goes nowhere by itself."""

    def __init__(self, house: ConnectHouse) -> None:
        self._house = house
        self.jar: dict[tuple[str, str], str] = {}

    async def get(self, url: str, **headers: str) -> Page:
        return await self.ask("GET", url, **headers)

    async def ask(self, method: str, url: str, *, data: Any = None, **headers: str) -> Page:
        url = urljoin(self._house.url, url)
        path = urlsplit(url).path
        cookies = [f"{name}={value}" for (at, name), value in self.jar.items() if _is_below(path, at)]
        sent = headers | ({"Cookie": "; ".join(cookies)} if cookies else {})
        async with self._house.http.request(
            method, url, headers=sent, data=data, allow_redirects=False, skip_auto_headers=["Accept"]
        ) as answer:
            page = Page(answer.status, answer.headers, await answer.text())
        for name, morsel in page.cookies.items():
            self.jar.pop((morsel["path"], name), None)
            if morsel["max-age"] != "0":
                self.jar[morsel["path"], name] = morsel.value
        return page

    async def to_provider(self, ticket: str) -> str:
        """The provider's address that a ticket leads to."""
        page = await self.get(ticket)
        assert page.status == 303, page
        return page.location

    async def to_callback(self, ticket: str, *, login: str | None = None) -> str:
        """The address of ours that the provider sends the browser back to, after consent."""
        return await self._house.oauth.consent(await self.to_provider(ticket), login=login)


def _is_below(path: str, at: str) -> bool:
    return path == at or path.startswith(at.rstrip("/") + "/")


def providers_at(oauth: OAuthServer, **changes: Any) -> ProviderSettings:
    """Google and Microsoft are both this server."""
    whole = ProviderSettings(
        google_client_id=CLIENT_ID,
        google_client_secret=CLIENT_SECRET,
        google_authorize_url=oauth.authorize_url,
        google_token_url=oauth.token_url,
        google_revoke_url=oauth.revoke_url,
        google_jwks_url=oauth.jwks_url,
        google_issuer=oauth.issuer,
        google_api_url=oauth.issuer,
        microsoft_client_id=CLIENT_ID,
        microsoft_client_secret=CLIENT_SECRET,
        microsoft_tenant="common",
        microsoft_authorize_url=oauth.authorize_url,
        microsoft_token_url=oauth.token_url,
        microsoft_revoke_url="",
        microsoft_jwks_url=oauth.jwks_url,
        microsoft_issuer=oauth.issuer,
        microsoft_graph_url=f"{oauth.issuer}/v1.0",
        provider_timeout=2,
        allow_private_hosts=True,
    )
    return replace(whole, **changes)


@asynccontextmanager
async def connecting_at(
    house: HttpHouse, oauth: OAuthServer, url: str, *, settings: ProviderSettings | None = None, **parts: Any
) -> AsyncIterator[Connecting]:
    """What connecting is made of, for a browser that finds us at this URL."""
    services = house.services
    uses = UseReports(services.command_log)
    uses.start()
    try:
        async with connectors(settings or providers_at(oauth), CollectorRegistry()) as found:
            whole = Connecting(
                vault=Vault(services.pool, LocalKeys(services.keyset), services.keyset),
                connectors=found,
                tickets=Tickets(services.pool, services.keyset),
                consents=Consents(services.pool, services.keyset),
                sessions=Sessions(services.pool),
                uses=uses,
                public_url=url,
                return_urls=ReturnUrls.of(BACK),
                allow_private_hosts=True,
            )
            yield replace(whole, **parts)
    finally:
        await uses.close()


@asynccontextmanager
async def served_at(house: HttpHouse, connecting: Connecting, port: int) -> AsyncIterator[None]:
    """Answers on this port until the block ends."""
    services = replace(house.services, metrics=CollectorRegistry())
    serves = server(create_app(services, routers=[routes(services, connecting)]), port=port)
    running = asyncio.create_task(serves._serve())
    try:
        async with asyncio.timeout(10):
            while not serves.started:
                await asyncio.sleep(0.01)
        yield
    finally:
        serves.should_exit = True
        await running


@asynccontextmanager
async def connect_house(
    servers: Servers, database: str, prefix: str, folder: Path, *, settings: dict[str, Any] | None = None
) -> AsyncIterator[ConnectHouse]:
    """All of it, ready, until the block ends. `settings`: of providers, where they are other than usual."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    callbacks = tuple(f"{url}/v1/connect/{provider}/callback" for provider in ("gmail", "outlook", "smtp"))
    async with (
        OAuthServer(Client(CLIENT_ID, CLIENT_SECRET, callbacks), mode="google") as oauth,
        http_house(servers, database, prefix, folder) as inner,
        connecting_at(inner, oauth, url, settings=providers_at(oauth, **(settings or {}))) as connecting,
        served_at(inner, connecting, port),
    ):
        yield ConnectHouse(inner, connecting, oauth, url)
