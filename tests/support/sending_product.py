"""A product's server that sends by its user's mailboxes, and all that is around it: providers, mail servers, receivers."""

import asyncio
import base64
import email
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp

from tests.support.gmail.double import GmailFake
from tests.support.graph.double import GraphFake
from tests.support.mail_servers.double import ImapServer, SmtpServer
from tests.support.oauth_server.server import Client, OAuthServer
from tests.support.up import Up
from tests.support.webhook_house import Received, Receiver, receiving, verified

GOOGLE = Client("postledger-at-google", "canary-google-secret-1b7f", mode="google")
MICROSOFT = Client("postledger-at-microsoft", "canary-microsoft-secret-90aa", mode="microsoft")
BACK = "https://app.example/mail"
GMAIL, OUTLOOK, OWN = "ada@gmail.test", "ada@outlook.test", "ada@own.test"
PASSWORD = "canary-password-44d0"
SUBJECT, TEXT, HEADER = "canary-subject-5e1c", "canary-body-c07d", "canary-header-2a90"
RECIPIENT, HIDDEN, KEY = "canary-recipient-71f3", "canary-hidden-be52", "canary-key-8d18"
FILE, FILE_NAME = b"canary-attachment-3f66 " * 4000, "canary-name-e0b4.txt"
CALLBACK = "canary-callback-6c29"
ENDED = {"sent", "failed", "cancelled", "uncertain", "dead_lettered"}
#: Waits of ours are so much shorter; seconds that one call may take, and that a signed link lives.
SCALE, TIMEOUT, LINK = "0.01", "3", "3"


@dataclass
class World:
    """Everything that is not ours: providers, mail servers, receivers of webhooks."""

    oauth: OAuthServer
    gmail: GmailFake
    graph: GraphFake
    smtp: SmtpServer
    imap: ImapServer
    hook: Receiver
    callback: Receiver

    async def sent(self, subject: str) -> list[str]:
        """By which provider a mail of this subject went out, once for each time that it did."""
        found = ["gmail" for mail in await self.gmail.mails() if subject_of(mail.given) == subject]
        found += ["outlook" for mail in self.graph.receipts() if mail["subject"] == subject]
        return found + ["smtp" for mail in (await self.smtp.told())["mails"] if subject_of(content(mail)) == subject]


@dataclass
class Product:
    """A product's server: its API key, its user with three mailboxes, and what it must never find anywhere else."""

    up: Up
    world: World
    http: aiohttp.ClientSession
    key: str = ""
    user: str = ""
    connections: dict[str, str] = field(default_factory=dict)
    webhook_secret: str = ""
    secrets: set[str] = field(default_factory=set)

    async def ask(self, method: str, path: str, *, status: int = 200, headers: Any = None, **more: Any) -> Any:
        said = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"} | (headers or {})
        async with self.http.request(method, f"{self.up.url}{path}", headers=said, **more) as answer:
            assert answer.status == status, await answer.text()
            return None if status == 204 else await answer.json()

    async def send(self, subject: str, *, status: int = 202, key: str = "", wait: int = 0, **more: Any) -> Any:
        """The answer to a request for a mail of this subject; `more` are members of its body."""
        headers = ({"Idempotency-Key": key} if key else {}) | ({"Prefer": f"wait={wait}"} if wait else {})
        body = {"userId": self.user, "subject": subject, "body": TEXT, "bodyFormat": "text"}
        body |= {"to": f"{RECIPIENT}@example.org", "callbackUrl": f"{self.world.callback.url}/{CALLBACK}"}
        return await self.ask("POST", "/v1/messages/send", status=status, headers=headers, json=body | more)

    async def ended(self, send: str, *statuses: str, seconds: float = 30) -> Any:
        """The send, once it has ended; in one of these states."""
        async with asyncio.timeout(seconds):
            while (found := await self.ask("GET", f"/v1/messages/{send}"))["status"] not in ENDED:
                await asyncio.sleep(0.1)
        assert found["status"] in (statuses or {"sent"}), found
        return found

    async def told_of(self, send: str, kind: str, *, seconds: float = 60) -> None:
        """Both receivers have heard of it, signed by the secret that each knows."""
        own = (await self.ask("GET", "/v1/webhooks/secret"))["secret"]
        self.secrets |= {own, own.removeprefix("whsec_")}
        for receiver, secret in ((self.world.hook, self.webhook_secret), (self.world.callback, own)):
            async with asyncio.timeout(seconds), receiver.came:
                await receiver.came.wait_for(lambda r=receiver, s=secret: is_told(r.calls, s, send, kind))

    async def connect(self, provider: str, login: str) -> str:
        """A browser follows a ticket to the provider and back; the connection."""
        said = {"userId": self.user, "returnUrl": BACK}
        ticket = (await self.ask("GET", f"/v1/connect/{provider}", params=said))["url"]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(ticket, allow_redirects=False) as answer:
                consent = answer.headers["Location"]
            back = await self.world.oauth.consent(consent, login=login)
            async with browser.get(back, allow_redirects=False) as answer:
                found = parse_qs(urlsplit(answer.headers["Location"]).query)
        assert found["status"] == ["connected"], found
        return found["connectionId"][0]


def subject_of(mail: bytes) -> str:
    return str(read(mail)["Subject"])


def read(mail: bytes) -> EmailMessage:
    found = email.message_from_bytes(mail, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def content(mail: dict[str, Any]) -> bytes:
    return base64.b64decode(mail["content"])


def is_told(calls: list[Received], secret: str, send: str, kind: str) -> bool:
    said = [verified(call, secret) for call in calls]
    return any(one["type"] == kind and one["data"].get("messageId") == send for one in said)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        oauth = await enter(OAuthServer(GOOGLE, MICROSOFT, mode="google"))
        users = {OWN: {"password": PASSWORD}}
        yield World(
            oauth,
            await enter(GmailFake(oauth=oauth.issuer)),
            await enter(GraphFake(oauth=oauth.issuer)),
            await enter(SmtpServer(users)),
            await enter(ImapServer(users)),
            await enter(receiving()),
            await enter(receiving()),
        )


def settings(found: World) -> dict[str, str]:
    """Google's and Microsoft's, with the doubles in their place."""
    oauth = found.oauth
    said = {"return_urls": BACK, "allow_private_hosts": "1", "retry_scale": SCALE, "provider_timeout": TIMEOUT}
    said |= {"google_api_url": found.gmail.url, "microsoft_graph_url": found.graph.url, "link_seconds": LINK}
    said |= {"google_revoke_url": oauth.revoke_url, "webhook_timeout": TIMEOUT}
    for name, client in (("google", GOOGLE), ("microsoft", MICROSOFT)):
        said |= {f"{name}_client_id": client.id, f"{name}_client_secret": client.secret}
        said |= {f"{name}_authorize_url": oauth.authorize_url, f"{name}_token_url": oauth.token_url}
        said |= {f"{name}_jwks_url": oauth.jwks_url, f"{name}_issuer": oauth.issuer}
    return said
