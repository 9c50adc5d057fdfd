"""An authorization server to connect accounts with: a certified one (oidc-provider) that consents by itself.

    async with OAuthServer(Client("id", "secret", ("http://127.0.0.1:1/callback",)), mode="google") as server:
        arrived = await server.consent(url_of_the_product, login="bob@gmail.test")
        await server.control(failNext={"path": "token", "times": 2, "status": 503})

What can be set and how requests can be made to fail: `SETTINGS` and `FAILURE` in control.mjs.
"""

from dataclasses import asdict, dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import aiohttp

from tests.support.node import node, npm_packages
from tests.support.own_child import OwnChild

_SERVER = Path(__file__).with_name("server.mjs")
_GOOGLE = ("gmail.compose", "gmail.readonly", "gmail.send", "gmail.modify", "gmail.metadata", "gmail.labels",
           "userinfo.email", "userinfo.profile")  # fmt: skip
_GRAPH = ("User.Read", "Mail.Read", "Mail.ReadWrite", "Mail.Send", "Mail.Read.Shared", "Mail.Send.Shared")
_OUTLOOK = ("SMTP.Send", "IMAP.AccessAsUser.All", "POP.AccessAsUser.All")
SCOPES = (
    "email",
    "profile",
    "https://mail.google.com/",
    *(f"https://www.googleapis.com/auth/{name}" for name in _GOOGLE),
    *_GRAPH,
    *(f"https://graph.microsoft.com/{name}" for name in _GRAPH),
    *(f"https://outlook.office.com/{name}" for name in _OUTLOOK),
    *(f"https://outlook.office365.com/{name}" for name in _OUTLOOK),
)


@dataclass(frozen=True)
class Client:
    """A confidential client. Its mode (strict, google, microsoft) is the server's unless it has its own."""

    id: str
    secret: str
    redirect_uris: tuple[str, ...] = ("http://127.0.0.1:9/callback",)
    mode: str | None = None

    def told(self) -> dict[str, Any]:
        words = asdict(self)
        return words | {"redirectUris": list(words.pop("redirect_uris"))}


@dataclass(frozen=True)
class Seeded:
    """A grant that nobody had to consent to."""

    email: str
    refresh_token: str
    access_token: str


class OAuthServer:
    """The server as a child process, on a port of 127.0.0.1 that it chooses."""

    def __init__(self, *clients: Client, scopes: tuple[str, ...] = (), **settings: Any) -> None:
        self.clients = clients or (Client("client", "secret"),)
        self._told = {"clients": [one.told() for one in self.clients], "scopes": [*SCOPES, *scopes], **settings}
        self.issuer = ""
        self._child: OwnChild | None = None
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        kit = npm_packages()
        self._child = await OwnChild.start(
            "oauth-server", [node(), _SERVER], environment={"KIT": str(kit)}, told=self._told, seconds=30
        )
        self.issuer = self._child.word["issuer"]
        self._http = aiohttp.ClientSession(self.issuer, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        assert self._child is not None
        assert self._http is not None
        await self._http.close()
        await self._child.stop()

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def said(self) -> str:
        """What the server wrote on its standard error."""
        assert self._child is not None
        return self._child.said

    @property
    def authorize_url(self) -> str:
        return f"{self.issuer}/authorize"

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/token"

    @property
    def revoke_url(self) -> str:
        return f"{self.issuer}/revoke"

    @property
    def jwks_url(self) -> str:
        return f"{self.issuer}/jwks"

    @property
    def metadata_url(self) -> str:
        return f"{self.issuer}/.well-known/openid-configuration"

    async def control(self, **words: Any) -> None:
        """Set what is set until `reset`: settings, `failNext` (one failure or a list of them), `user`."""
        await self._post("/_test", words)

    async def counts(self) -> dict[str, Any]:
        """`total`, `users[login]`, `families[grant]`: each with refreshes, refusedRefreshes, codeExchanges, maxConcurrent…

        Beside them `requests[path]` and `injected[path]`, with the failures that are left.
        """
        assert self._http is not None
        async with self._http.get("/_test") as answer:
            return await answer.json()

    async def add_client(self, client: Client) -> None:
        """A client more, or other redirect URIs for one there is; `reset` undoes it."""
        await self._post("/_test/client", client.told())

    async def revoke(self, login: str, client: str | None = None) -> int:
        """What a user does on the provider's own page; the number of grants that ended."""
        return (await self._post("/_test/revoke", {"login": login, "client": client}))["grants"]

    async def seed(
        self,
        count: int = 1,
        *,
        client: str,
        scope: str,
        expires_in: int | None = None,
        logins: list[str] | None = None,
        domain: str = "gmail.test",
    ) -> list[Seeded]:
        """Grants of user0@…, user1@… (or of `logins`) without consent; `expires_in` is that of the access tokens."""
        words = {
            "count": count,
            "client": client,
            "scope": scope,
            "expiresIn": expires_in,
            "logins": logins,
            "domain": domain,
        }
        told = await self._post("/_test/seed", words)
        return [Seeded(one["email"], one["refreshToken"], one["accessToken"]) for one in told["seeded"]]

    async def token(self, token: str) -> dict[str, Any]:
        """Of any token: `alive`, and then kind, login, client, scope, expiresIn. Uses nothing up."""
        return await self._post("/_test/token", {"token": token})

    async def reset(self) -> None:
        """Everything as it was at the start: settings, clients, counts; no grants, no tokens."""
        await self._post("/_test/reset", {})

    async def consent(self, url: str, *, login: str | None = None) -> str:
        """Go to `url` as a browser does and answer the address outside of this server that it is sent to at last.

        Raises RuntimeError when the server keeps the user, as it does when the redirect URI or the client is unknown.
        """
        assert self._http is not None
        if login is not None:
            parts = urlsplit(url)
            query = [*((name, value) for name, value in parse_qsl(parts.query) if name != "login_hint")]
            url = urlunsplit(parts._replace(query=urlencode([*query, ("login_hint", login)])))
        cookies: dict[str, str] = {}
        for _ in range(10):
            sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
            async with self._http.get(url, allow_redirects=False, headers=sent) as answer:
                for header in answer.headers.getall("Set-Cookie", []):
                    cookies |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}
                if "Location" not in answer.headers:
                    raise RuntimeError(f"{answer.status} instead of a redirection: {(await answer.text())[:2000]}")
                url = urljoin(url, answer.headers["Location"])
            if not url.startswith(self.issuer + "/"):
                return url
        raise RuntimeError(f"redirected again and again, at last to {url}")

    async def _post(self, path: str, words: dict[str, Any]) -> dict[str, Any]:
        assert self._http is not None
        async with self._http.post(path, json=words) as answer:
            told = await answer.json()
            if answer.status != 200:
                raise ValueError(told["error"])
            return told
