"""The whole house behind HTTP, in this process: deciders, projections, and a server of its own with a client.

Mail is handed in at the door that SMTP and SES stand behind.
"""

import asyncio
import hashlib
import io
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastapi import APIRouter
from pydantic import SecretStr

from domain.account import AssignPlan, CreateAccount, DefinePlan, IssueApiKey, RevokeApiKey
from domain.plans import Limits
from gateways.http.app import create_app
from gateways.http.services import Services
from gateways.http.serving import server
from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.decisions import Asked, Decisions
from gateways.log.raw_mail import RawMailLog
from gateways.mail_in.door import Envelope, Spooled
from gateways.providers.egress import Egress
from gateways.settings import Settings
from gateways.stores.key_stock import KeyStock
from gateways.stores.mail_store import MailStore
from gateways.stores.rates import Rates
from main import House, assembled, prepare
from projections.accounts import PROJECTION as ACCOUNTS
from schemas import commands, events
from schemas.documents import documents
from schemas.ids import new_id
from schemas.topics import ACCOUNT_COMMANDS

MAIL_DOMAIN = "mail.example"


@dataclass
class HttpHouse:
    """What tests ask and do; `url` is where the API answers."""

    house: House
    services: Services
    accounts: Decisions
    url: str
    http: aiohttp.ClientSession

    async def account(self, plan: str = "pro") -> tuple[str, str]:
        """A new account and an API key of it."""
        account = new_id("acc")
        await self._account_command(account, CreateAccount(account, plan))
        return account, await self.key(account)

    async def key(self, account: str, *scopes: str) -> str:
        """One more API key of this account, narrowed to these scopes."""
        key = f"pl_live_{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        await self._account_command(account, IssueApiKey(account, new_id("key"), key[:12], digest, list(scopes)))
        return key

    async def plan(self, name: str | None = None, **limits: int) -> str:
        """A plan, new or changed; what is not said is roomy."""
        name = name or f"plan-{secrets.token_hex(4)}"
        most = {"default_ttl_minutes": 60, "longest_ttl_minutes": 1440, "live_mailboxes": 1000, "live_messages": 2000}
        await self._account_command("plans", DefinePlan(name, Limits(**(most | limits))))
        return name

    async def assign(self, account: str, plan: str) -> None:
        await self._account_command(account, AssignPlan(account, plan))

    async def revoke(self, account: str, key: str) -> None:
        await self._account_command(account, RevokeApiKey(account, key))

    async def _account_command(self, key: str, command: Any) -> None:
        await self.accounts.ask(Asked(ACCOUNT_COMMANDS.name, key, key, command, ACCOUNTS.name))

    async def mailbox(self, key: str | None = None, query: str = "") -> dict[str, Any]:
        """A new mailbox: the answer to its creation."""
        async with self.http.post(f"{self.url}/api/v1/mailboxes{query}", headers=bearer(key)) as answer:
            assert answer.status == 201, await answer.text()
            return dict(await answer.json())

    async def deliver(self, address: str, mail: bytes, count: int = 1) -> None:
        """The mail arrives, so many times, and can be listed."""
        door = self.house.door()
        inbox = await door.find(address)
        assert inbox is not None
        for _ in range(count):
            envelope = Envelope("bounce@example.org", address, "mx.example.org", "192.0.2.1", tls=False, via="smtp")
            await door.deliver(
                Spooled(io.BytesIO(mail), len(mail), hashlib.sha256(mail).hexdigest()), [(inbox, envelope)]
            )

    async def listed(self, box: dict[str, Any], count: int, *, seconds: float = 20) -> list[dict[str, Any]]:
        """The list of its messages, once there are so many; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                async with self.http.get(f"{self.url}{path(box)}/messages?limit=1000", headers=bearer(box)) as answer:
                    found: list[dict[str, Any]] = await answer.json()
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.02)


def bearer(who: str | dict[str, Any] | None) -> dict[str, str]:
    """The header of an API key, or of a mailbox's session token."""
    secret = who["session_token"] if isinstance(who, dict) else who
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def path(box: dict[str, Any]) -> str:
    return f"/api/v1/mailboxes/{box['address']}"


def _services(house: House, **more: Any) -> Services:
    log = house.command_log
    return Services(
        pool=house.pool,
        keyset=house.keyset,
        keyring=house.keyring,
        key_stock=KeyStock(house.keyring),
        decisions=Decisions(log, house.tail, house.folded, commands=commands.MAILBOX, events=events.MAILBOX),
        account_decisions=Decisions(log, house.tail, house.folded, commands=commands.ACCOUNT, events=events.ACCOUNT),
        connection_decisions=Decisions(
            log, house.tail, house.folded, commands=commands.CONNECTION, events=events.CONNECTION
        ),
        webhook_decisions=Decisions(log, house.tail, house.folded, commands=commands.WEBHOOK, events=events.WEBHOOK),
        send_decisions=Decisions(log, house.tail, house.folded, commands=commands.SEND, events=events.SEND),
        retry_scale=house.settings.retry_scale,
        command_log=log,
        folded=house.folded,
        mail=MailStore(house.keyring, RawMailLog(house.kafka, prefix=house.prefix), house.blobs),
        blobs=house.blobs,
        rates=Rates(house.pool),
        mail_domain=MAIL_DOMAIN,
        kafka=house.kafka,
        tail=house.tail,
        asyncapi=lambda: documents()["asyncapi.json"],
        **more,
    )


@asynccontextmanager
async def served(services: Services, *, routers: Sequence[APIRouter] = ()) -> AsyncIterator[str]:
    """The URL of a server of our own kind, running until the block ends."""
    port = free_port()
    serves = server(create_app(services, routers=routers), port=port)
    running = asyncio.create_task(serves._serve())
    try:
        async with asyncio.timeout(10):
            while not serves.started:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        serves.should_exit = True
        await running


@asynccontextmanager
async def patient() -> AsyncIterator[None]:
    """More time for a decision to be in the tables: all roles are this one process, and other tests run beside it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gateways.log.decisions.SETTLE_SECONDS", 6.0)
        yield


@asynccontextmanager
async def http_house(
    servers: Servers,
    database: str,
    prefix: str,
    folder: Path,
    *,
    rates_on: bool = False,
    **said: Any,
) -> AsyncIterator[HttpHouse]:
    """All of it, ready, until the block ends. `said`: further settings."""
    settings = Settings(
        data=folder,
        kafka=servers.kafka,
        database_url=SecretStr(database),
        topic_prefix=prefix,
        mail_domain=MAIL_DOMAIN,
        **said,
    )
    await prepare(settings)
    async with assembled(settings, ["work", "project"]) as house, aiohttp.ClientSession() as http, patient():
        await house.follow()
        services = _services(house, rates_on=rates_on, egress=Egress(settings.allow_private_hosts))
        log, tail, folded = house.command_log, house.tail, house.folded
        accounts = Decisions(log, tail, folded, commands=commands.ACCOUNT, events=events.ACCOUNT)
        async with served(services) as url:
            async with http.get(f"{url}/readyz?wait=30s") as answer:
                assert answer.status == 200, await answer.text()
            yield HttpHouse(house, services, accounts, url, http)
        await services.rates.close()
