"""A house that works and projects in this process, with accounts at a real authorization server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr

from domain.connection_commands import AuthoriseConnection, RevokeConnection
from domain.connection_events import Provider, Token
from domain.provider_scopes import DEFAULT_SCOPES
from domain.tokens import Secrets
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from gateways.providers.microsoft import SEES_PROFILE
from gateways.settings import Settings
from gateways.stores.due_tokens import DueTokens
from gateways.stores.sealing import place, seal
from gateways.token_measures import TokenMeasures
from handlers.refresh import Refreshing
from handlers.reporting import Reports
from main import House, assembled, prepare
from schemas import commands, events, topics
from schemas.envelope import first
from schemas.ids import new_id
from tests.faults.connected import CLIENT, SECRET, provider_settings
from tests.support.oauth_server.server import Client, OAuthServer

#: Seconds that a call to the provider may take.
TIMEOUT = 2.5
#: Waits of ours are so much shorter.
SCALE = 0.02


@dataclass
class Account:
    """A connected mailbox, with what consent gave."""

    connection: str
    user: str
    login: str
    version: int
    secrets: Secrets = field(repr=False)


@dataclass
class RefreshHouse:
    """What tests ask and do."""

    house: House
    server: OAuthServer
    log: EventLog
    folder: Path

    async def connect(
        self,
        provider: Provider = "gmail",
        *,
        user: str = "",
        login: str = "",
        due: bool = False,
        expired: bool = False,
        tell: bool = True,
    ) -> Account:
        """A new account, in the vault and in the tables. `due`: in a second. `expired`: by the vault, and no timer knows.

        `tell=False`: the callback was cut short before its command.
        """
        connection, user = new_id("con"), user or new_id("usr")
        login = login or f"{connection[4:].lower()}@mail.test"
        scope = " ".join([*DEFAULT_SCOPES[provider], *([SEES_PROFILE] if provider == "outlook" else [])])
        (seeded,) = await self.server.seed(client=CLIENT, scope=scope, logins=[login])
        ends = datetime.now(UTC) + timedelta(seconds=-1 if due or expired else 3600)
        secrets = Secrets(seeded.access_token, seeded.refresh_token, ends)
        fingerprint = self.house.vault.fingerprint_of(secrets)
        version = await self.house.vault.put(connection, user, provider, secrets, fingerprint)
        account = Account(connection, user, login, version, secrets)
        if tell:
            until = ends if due else datetime.now(UTC) + timedelta(hours=1)
            await self.ask(await self.authorise(account, provider, Token(fingerprint, version, until)))
            await self.row(account)
        return account

    async def authorise(self, account: Account, provider: Provider, token: Token) -> AuthoriseConnection:
        """What a callback asks for."""
        keyring = self.house.keyring
        found = await keyring.get([account.user])
        data_key = found.get(account.user) or await keyring.create(account.user)
        return AuthoriseConnection(
            connection=account.connection,
            user=account.user,
            owner="acc_ours",
            provider=provider,
            auth="oauth",
            account=seal(data_key, account.login.encode(), place("connection", account.connection, "account")),
            account_digest=self.house.keyset.digest("connection-account", provider, account.login),
            subject_digest=None,
            scopes=list(DEFAULT_SCOPES[provider]),
            asked_scopes=list(DEFAULT_SCOPES[provider]),
            token=token,
        )

    async def ask(self, command: Any) -> None:
        await self.house.command_log.command(
            topics.CONNECTION_COMMANDS.name,
            command.user,
            command,
            vocabulary=commands.CONNECTION,
            subject=getattr(command, "connection", command.user),
        )

    async def revoke(self, account: Account) -> None:
        await self.ask(RevokeConnection(account.connection, account.user, "caller"))

    def refreshing(self, **changed: Any) -> tuple[Refreshing, CollectorRegistry]:
        """As another process has it, with what it counts. `changed`: arguments of Refreshing that are other than usual."""
        house, registry = self.house, CollectorRegistry()
        parts = {
            "vault": house.vault,
            "connectors": house.connectors.by_provider,
            "due": DueTokens(house.pool),
            "reports": Reports(house.command_log),
            "measures": TokenMeasures(house.pool, registry),
            "holder": new_id("test"),
            "timeout": TIMEOUT,
            "scale": SCALE,
        } | changed
        return Refreshing(**parts), registry

    # ── what has become of it ─────────────────────────────────────────────────────────────────────────────────────────

    async def row(self, account: Account, holds: Callable[[Any], bool] = bool, *, seconds: float = 20) -> Any:
        """What the tables say of it, once they say so."""
        row = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    row = await self.house.pool.fetchrow(
                        "select * from connections where connection = $1", account.connection
                    )
                    if row is not None and holds(row):
                        return row
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s: {row}") from None

    async def events(self, account: Account) -> list[Any]:
        """What the log says of it."""
        found = []
        topic = topics.CONNECTION_EVENTS.name
        for partition in await self.log.partitions(topic):
            start, _ = await self.log.bounds(topic, partition)
            async for records in self.log.read_on(topic, partition, start):
                found += [record for record in records if not record.void and record.key == account.user]
        decoded = [events.CONNECTION.decode(first(one.headers)["ce_type"], one.value) for one in found]
        return [event for event in decoded if getattr(event, "connection", account.connection) == account.connection]

    async def happened(self, account: Account, kind: type, count: int = 1, *, seconds: float = 20) -> list[Any]:
        """So many events of this type, once there are so many."""
        found: list[Any] = []
        try:
            async with asyncio.timeout(seconds):
                while len(found) < count:
                    found = [event for event in await self.events(account) if isinstance(event, kind)]
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s: {await self.events(account)}") from None
        return found

    async def counts(self, account: Account) -> dict[str, int]:
        """What the provider has counted for this login."""
        users = (await self.server.counts())["users"]
        return dict(users.get(account.login, {"refreshes": 0, "refusedRefreshes": 0, "revocations": 0}))

    async def refused(self) -> int:
        """Refreshes that the provider refused, of grants that have ended, too."""
        return int((await self.server.counts())["total"]["refusedRefreshes"])

    async def leased_for(self, account: Account) -> float:
        """Seconds that its lease still lasts; 0 where it has none."""
        left = await self.house.pool.fetchval(
            "select extract(epoch from leased_until - now()) from vault where connection = $1", account.connection
        )
        return max(0.0, float(left or 0))


def counted(registry: CollectorRegistry, name: str) -> list[str]:
    """The lines of one metric."""
    return [line for line in generate_latest(registry).decode().splitlines() if line.startswith(name)]


@asynccontextmanager
async def refresh_house(
    servers: Servers, database: str, prefix: str, folder: Path, *, roles: tuple[str, ...] = ("work", "project")
) -> AsyncIterator[RefreshHouse]:
    """All of it, until the block ends. Google's and Microsoft's servers are one, whose mode tests choose."""
    async with OAuthServer(Client(CLIENT, SECRET), mode="google") as server:
        google = provider_settings(server)
        names = ("client_id", "client_secret", "authorize_url", "token_url", "jwks_url", "issuer")
        microsoft = {f"microsoft_{name}": google[f"google_{name}"] for name in names}
        settings = Settings(
            data=folder,
            kafka=servers.kafka,
            database_url=SecretStr(database),
            topic_prefix=prefix,
            partitions=1,
            provider_timeout=TIMEOUT,
            retry_scale=SCALE,
            **google,
            **microsoft,
        )
        await prepare(settings)
        log = EventLog(servers.kafka, prefix=prefix)
        try:
            async with assembled(settings, roles) as house:
                if "work" not in roles:
                    await house.connect()
                yield RefreshHouse(house, server, log, folder)
        finally:
            await log.close()
