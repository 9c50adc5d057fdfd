"""A connected account as a product team lives through it: `main.py up`, a user's browser, and months in seconds."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.postgres import pooled
from gateways.stores.vault import Vault
from tests.support.everywhere import found_in, tables_of, topics_of
from tests.support.oauth_server.server import Client, OAuthServer
from tests.support.up import Up, installed_at, started

CLIENT, SECRET = "postledger-at-google", "canary-client-secret-52c1"
BACK = "https://app.example/mail"
ADA = "ada@gmail.test"
#: Seconds that an access token lives, so that the timer has something to do.
LIFE = 6


class Product:
    """A product's server with its API key, and the browsers of its users."""

    def __init__(self, up: Up, oauth: OAuthServer, http: aiohttp.ClientSession, key: str) -> None:
        self.up, self.oauth, self.http = up, oauth, http
        self.headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self.secrets = {SECRET, key}

    @classmethod
    async def of(cls, up: Up, oauth: OAuthServer, http: aiohttp.ClientSession) -> "Product":
        """One that the provider knows, and that has an account here."""
        await oauth.add_client(Client(CLIENT, SECRET, (f"{up.url}/v1/connect/gmail/callback",), mode="google"))
        said = await asyncio.to_thread(up.words.says, "account", "create", "--plan", "pro")
        return cls(up, oauth, http, said.row["key"])

    async def user(self) -> str:
        body = {"email": "ada@example.org", "displayName": "Ada"}
        return str((await self.ask("POST", "/v1/users", status=201, json=body))["id"])

    async def note_secrets(self) -> None:
        """What the vault holds now: it must be found nowhere else, and nowhere at all in the end."""
        keyset = open_keyset(self.up.data / "keyset.json")
        async with pooled(self.up.servers.database_url, size=1) as pool:
            vault = Vault(pool, LocalKeys(keyset), keyset)
            for (connection,) in await pool.fetch("select connection from vault"):
                held = await vault.get(connection)
                assert held is not None
                self.secrets |= {held.secrets.access_token, held.secrets.refresh_token} - {None}

    async def ask(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        async with self.http.request(method, f"{self.up.url}{path}", headers=self.headers, **more) as answer:
            assert answer.status == status, await answer.text()
            return None if status == 204 else await answer.json()

    async def connect(self, user: str, *, login: str = ADA, **query: str) -> dict[str, str]:
        """A browser follows a ticket to the provider and back; what the product hears in the end."""
        said = {"userId": user, "returnUrl": BACK, **query}
        ticket = (await self.ask("GET", "/v1/connect/gmail", params=said))["url"]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(ticket, allow_redirects=False) as answer:
                assert answer.status == 303, await answer.text()
                consent = answer.headers["Location"]
            async with browser.get(await self.oauth.consent(consent, login=login), allow_redirects=False) as answer:
                assert answer.status == 303, await answer.text()
                way_back = answer.headers["Location"]
        assert way_back.startswith(f"{BACK}?"), way_back
        return {name: found for name, (found,) in parse_qs(urlsplit(way_back).query).items()}

    async def until(self, connection: str, seconds: float = 30, **wanted: Any) -> dict[str, Any]:
        """The connection, once it is as wanted."""
        async with asyncio.timeout(seconds):
            while True:
                found: dict[str, Any] = await self.ask("GET", f"/v1/connections/{connection}")
                if wanted.items() <= found.items():
                    return found
                await asyncio.sleep(0.1)

    async def refreshed_since(self, shown: dict[str, Any]) -> dict[str, Any]:
        """The connection, once its token is a newer one."""
        async with asyncio.timeout(30):
            while True:
                found: dict[str, Any] = await self.ask("GET", f"/v1/connections/{shown['id']}")
                assert found["state"] == "active", found
                if found["tokenExpiresAt"] > shown["tokenExpiresAt"]:
                    return found
                await asyncio.sleep(0.1)


@pytest.mark.timeout(300)
async def test_an_account_stays_connected_until_its_user_says_otherwise(tmp_path: Path) -> None:
    """Through refreshes, a provider that fails, rotated keys, a consent withdrawn, and `kill -9` of everything."""
    async with OAuthServer(Client(CLIENT, SECRET), mode="google", accessTokenLifetime=LIFE) as oauth:
        words = installed_at(tmp_path / "data", **settings(oauth))
        async with aiohttp.ClientSession() as http:
            with started(words) as up:
                product = await Product.of(up, oauth, http)
                user = await product.user()
                connection = (await product.connect(user))["connectionId"]
                await stays_connected(product, connection)
                await keys_are_rotated_under_it(product, connection)
                await needs_its_user_again(product, user, connection)
                await product.note_secrets()
                up.kill()
            with started(words) as product.up:
                await goes_on_after_the_crash(product, connection)
                await is_revoked(product, connection)
                rebuilt = await asyncio.to_thread(words.says, "replay", "--all", "--dry-run")
                assert rebuilt.code == 0, rebuilt
                await nothing_secret_is_anywhere(product)


def settings(oauth: OAuthServer) -> dict[str, str]:
    """Google's, with this server in its place."""
    return {
        "google_client_id": CLIENT,
        "google_client_secret": SECRET,
        "google_authorize_url": oauth.authorize_url,
        "google_token_url": oauth.token_url,
        "google_revoke_url": oauth.revoke_url,
        "google_jwks_url": oauth.jwks_url,
        "google_issuer": oauth.issuer,
        "google_api_url": oauth.issuer,
        "return_urls": BACK,
        "provider_timeout": "3",
        "retry_scale": "0.1",
    }


async def stays_connected(product: Product, connection: str) -> None:
    """Its token is replaced again and again, by one call each time."""
    shown = await product.until(connection, state="active", account=ADA, missingScopes=[])
    shown = await product.refreshed_since(await product.refreshed_since(shown))
    assert (await product.oauth.counts())["users"][ADA]["maxConcurrent"] <= 1
    await product.oauth.control(failNext={"path": "token", "times": 2, "status": 503})
    await product.refreshed_since(shown)


async def keys_are_rotated_under_it(product: Product, connection: str) -> None:
    rotated = await asyncio.to_thread(product.up.words.says, "rotate-keys")
    assert rotated.code == 0, rotated
    assert rotated.row["rows"] >= 2  # the user's, and the connection's
    await product.refreshed_since(await product.until(connection, state="active"))


async def needs_its_user_again(product: Product, user: str, connection: str) -> None:
    """Consent withdrawn at the provider is seen at the next refresh, said in plain words, and mended by connecting again."""
    await product.oauth.revoke(ADA)
    shown = await product.until(connection, state="reauth_required")
    assert shown["lastError"]["code"] == "invalid_grant"
    assert "connect" in shown["lastError"]["message"].lower()
    other = await product.connect(user, login="bob@gmail.test", connectionId=connection)
    assert other == {"error": "another_mailbox"}
    assert (await product.connect(user, connectionId=connection))["connectionId"] == connection
    await product.until(connection, state="active", lastError=None)


async def goes_on_after_the_crash(product: Product, connection: str) -> None:
    await product.refreshed_since(await product.until(connection, state="active"))
    await product.note_secrets()


async def is_revoked(product: Product, connection: str) -> None:
    """At the provider and here, and still to be looked at; the user's name is gone with the user."""
    await product.ask("DELETE", f"/v1/connections/{connection}", status=204)
    shown = await product.until(connection, state="revoked")
    async with asyncio.timeout(20):
        while (await product.oauth.counts())["users"][ADA]["revocations"] < 1:
            await asyncio.sleep(0.1)
    await product.ask("DELETE", f"/v1/users/{shown['userId']}", status=204)
    await product.ask("GET", f"/v1/connections/{connection}", status=404)


async def nothing_secret_is_anywhere(product: Product) -> None:
    """Not in a topic, a table, a log or a metric: what the vault held is gone with the connection."""
    assert len(product.secrets) >= 4
    servers, data = product.up.servers, product.up.data
    async with pooled(servers.database_url, size=1) as pool:
        assert await pool.fetchval("select count(*) from vault") == 0
        places = await topics_of(servers.kafka, "") | await tables_of(pool)
    places |= {str(log): log.read_bytes() for log in (*data.rglob("*.log"), product.up.log) if log.is_file()}
    async with product.http.get(f"{product.up.url}/metrics") as answer:
        places["/metrics"] = await answer.read()
    assert {"connection.events", "kept.consents", "/metrics"} <= places.keys()
    assert found_in(places, product.secrets) == []
