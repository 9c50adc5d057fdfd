"""A house behind HTTP whose users' mailboxes are at a double of Gmail: what is asked of it to be sent goes out there."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import FormData

from domain.tokens import Secrets
from gateways.local_servers import Servers
from schemas.ids import new_id
from tests.support.connected import SENDS, Person, person
from tests.support.gmail.double import GmailFake, Token
from tests.support.http_house import HttpHouse, bearer, http_house
from tests.support.servers import create_database, drop_database

SEND = "/v1/messages/send"
Answer = tuple[int, Any, Mapping[str, str]]
ENDED = ("sent", "failed", "cancelled", "uncertain", "dead_lettered")


@dataclass
class AskedSends:
    """What tests ask and do."""

    http: HttpHouse
    gmail: GmailFake

    async def asked(self, method: str, where: str, who: Any, *, url: str = "", **more: Any) -> Answer:
        """Status, JSON and headers of the answer; an error is a problem with a sentence."""
        headers = bearer(who) | more.pop("headers", {})
        async with self.http.http.request(method, (url or self.http.url) + where, headers=headers, **more) as answer:
            body = await answer.json(content_type=None) if answer.status != 304 else {}
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json"
                assert body["detail"].endswith("."), body
            return answer.status, body, answer.headers

    async def writer(self, *, connected: bool = True) -> "Writer":
        """A user of an account of their own, with a mailbox at Gmail."""
        account, key = await self.http.account()
        found = Writer(self, await person(self.http, account, key))
        if connected:
            await found.connect()
        return found


@dataclass
class Writer:
    """A user whose mail is sent."""

    house: AskedSends
    person: Person
    connection: str = ""
    address: str = ""

    @property
    def id(self) -> str:
        return self.person.id

    @property
    def key(self) -> str:
        return self.person.key

    async def connect(self) -> str:
        """Another mailbox, whose token is in the vault and good at the double."""
        connection = new_id("con")
        address, token = f"{connection[4:]}@mail.test", f"token-of-{connection}"
        await self.house.gmail.token(token, address)
        secrets = Secrets(token, "refresh", datetime.now(UTC) + timedelta(hours=1), None)
        vault = self.house.http.house.vault
        version = await vault.put(connection, self.id, "gmail", secrets, vault.fingerprint_of(secrets))
        await self.person.connect(address, connection=connection, scopes=(SENDS,), version=version)
        self.connection, self.address = connection, address
        return connection

    def mail(self, **more: Any) -> dict[str, Any]:
        """A body that is taken; what is None is left out."""
        usual = {
            "userId": self.id,
            "subject": "Tea at four",
            "body": "It is served.",
            "bodyFormat": "text",
            "to": ["bob@example.org"],
        }
        return {name: value for name, value in (usual | more).items() if value is not None}

    async def send(self, *, key: str | None = None, prefer: str | None = None, **more: Any) -> Answer:
        """The answer to asking for this mail; `key` and `prefer` as headers of the request."""
        said = {"Idempotency-Key": key, "Prefer": prefer}
        said = {name: value for name, value in said.items() if value is not None}
        return await self.house.asked("POST", SEND, self.key, json=self.mail(**more), headers=said)

    async def taken(self, **more: Any) -> str:
        """The id of a mail that was taken on."""
        status, body, _ = await self.send(**more)
        assert status == 202, body
        return str(body["messageId"])

    async def upload(self, content: bytes = b"x", name: str = "a.txt") -> str:
        """The id of an attachment of theirs."""
        form = FormData(quote_fields=False)
        form.add_field("file", content, filename=name, content_type="text/plain")
        where = f"/v1/attachments/upload?userId={self.id}"
        status, body, _ = await self.house.asked("POST", where, self.key, data=form)
        assert status == 201, body
        return str(body["id"])

    async def get(self, send: str, **headers: str) -> dict[str, Any]:
        status, body, _ = await self.house.asked("GET", f"/v1/messages/{send}", self.key, headers=headers)
        assert status == 200, body
        return dict(body)

    async def becomes(self, send: str, *statuses: str, seconds: float = 30) -> dict[str, Any]:
        """The message, once its status is one of these."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while (found := await self.get(send))["status"] not in statuses:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s: {found}") from None
        return found

    def receipts(self) -> list[Any]:
        return [one for one in self.house.gmail.receipts() if one.user == self.address]

    async def count(self) -> int:
        """Sends of this user that the tables have."""
        found: int = await self.house.http.services.pool.fetchval(
            "select count(*) from sends where user_id = $1", self.id
        )
        return found


@asynccontextmanager
async def asked_sends(servers: Servers, name: str, folder: Path, **said: Any) -> AsyncIterator[AskedSends]:
    """All of it, in a database of its own, until the block ends. `said`: settings."""
    own = f"{name}_{uuid.uuid4().hex}"
    database = create_database(servers, own)
    async with GmailFake({"-": Token("-")}) as gmail:
        settings = {"google_api_url": gmail.url, "provider_timeout": 2.0, "retry_scale": 0.02} | said
        async with http_house(servers, database, f"{own}.", folder, **settings) as http:
            yield AskedSends(http, gmail)
    drop_database(servers, own)
