"""An installation with connected accounts at a real authorization server, whose tokens live for seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from domain.connection_commands import AuthoriseConnection
from domain.connection_events import Token
from domain.provider_scopes import DEFAULT_SCOPES
from domain.tokens import Secrets
from gateways.local_servers import Servers
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.sealing import place, seal
from gateways.stores.vault import Vault
from schemas import commands, topics
from schemas.ids import new_id
from tests.faults.installation import Installation, installed
from tests.support.oauth_server.server import Client, OAuthServer, Seeded

CLIENT, SECRET = "postledger", "a secret of ours"
#: Seconds that an access token lives: they are due again and again.
LIFE = 6


@dataclass
class Accounts:
    """Connections, and what is known of them: in the vault, in the tables, and at the provider."""

    house: Installation
    server: OAuthServer
    vault: Vault
    connections: dict[str, Seeded] = field(default_factory=dict)

    @property
    def at_once(self) -> int:
        """Refreshes that may be under way at the moment of a kill."""
        return len(self.connections)

    async def connect(self, count: int, *, life: float = LIFE) -> list[str]:
        """Accounts whose users have consented: the vault first, then the command, as a callback does it."""
        scope = " ".join(DEFAULT_SCOPES["gmail"])
        seeded = await self.server.seed(
            count, client=CLIENT, scope=scope, expires_in=int(life), domain=f"{new_id('d')}.test".replace("_", "-")
        )
        one_of_many = asyncio.Semaphore(32)

        async def connect(each: Seeded) -> str:
            async with one_of_many:
                return await self._connect(each, life)

        return await asyncio.gather(*[connect(each) for each in seeded])

    async def _connect(self, seeded: Seeded, life: float) -> str:
        user, connection = new_id("usr"), new_id("con")
        expires_at = datetime.now(UTC) + timedelta(seconds=life)
        secrets = Secrets(seeded.access_token, seeded.refresh_token, expires_at)
        fingerprint = self.vault.fingerprint_of(secrets)
        version = await self.vault.put(connection, user, "gmail", secrets, fingerprint)
        keyset = open_keyset(self.house.settings.keyset_path)
        data_key = await self.house.keyring.create(user)
        command = AuthoriseConnection(
            connection=connection,
            user=user,
            owner="acc_ours",
            provider="gmail",
            auth="oauth",
            account=seal(data_key, seeded.email.encode(), place("connection", connection, "account")),
            account_digest=keyset.digest("connection-account", "gmail", seeded.email),
            subject_digest=None,
            scopes=list(DEFAULT_SCOPES["gmail"]),
            asked_scopes=list(DEFAULT_SCOPES["gmail"]),
            token=Token(fingerprint, version, expires_at),
        )
        await self.ask(command, user)
        self.connections[connection] = seeded
        return connection

    async def replenish(self, count: int) -> None:
        """Connects others in the place of those that need their user, so that so many are refreshed."""
        rows = await self.rows()
        await self.connect(count - sum(row["state"] == "active" for row in rows.values()))
        await self.shown(len(self.connections))

    async def ask(self, command: Any, user: str) -> None:
        await self.house.command_log.command(
            topics.CONNECTION_COMMANDS.name,
            user,
            command,
            vocabulary=commands.CONNECTION,
            subject=command.connection,
        )

    async def rows(self) -> dict[str, Any]:
        """What the tables say of each connection, by its id."""
        found = await self.house.pool.fetch("select * from connections")
        return {row["connection"]: row for row in found}

    async def shown(self, count: int, *, seconds: float = 60) -> None:
        """Returns once so many connections are in the tables."""
        async with asyncio.timeout(seconds):
            while len(await self.rows()) < count:
                await asyncio.sleep(0.05)

    async def healed(self, seconds: float) -> set[str]:
        """The connections that need their user; all others have a token that the provider takes. Raises TimeoutError.

        What worked before and was due since must have been refreshed by a worker that lives: a token is no proof that is
        older than this call.
        """
        begun = {connection: row["token_version"] for connection, row in (await self.rows()).items()}
        async with asyncio.timeout(seconds):
            while True:
                rows = await self.rows()
                lost = {connection for connection, row in rows.items() if row["state"] == "reauth_required"}
                waiting = [one for one in rows if one not in lost and not await self._works(one, rows, begun)]
                if not waiting:
                    return lost
                await asyncio.sleep(0.1)

    async def _works(self, connection: str, rows: dict[str, Any], begun: dict[str, int]) -> bool:
        row, held = rows[connection], await self.vault.get(connection)
        assert row["state"] == "active", row
        assert held is not None, "the tokens of an active connection are gone"
        if row["token_version"] <= begun[connection] or held.secrets.access_token is None:
            return False
        return bool((await self.server.token(held.secrets.access_token))["alive"])


def provider_settings(server: OAuthServer) -> dict[str, Any]:
    """Google's settings, with this server in its place."""
    return {
        "google_client_id": CLIENT,
        "google_client_secret": SECRET,
        "google_authorize_url": server.authorize_url,
        "google_token_url": server.token_url,
        "google_revoke_url": server.revoke_url,
        "google_jwks_url": server.jwks_url,
        "google_issuer": server.issuer,
        "google_api_url": server.issuer,
    }


@asynccontextmanager
async def connected(
    servers: Servers, database: str, prefix: str, folder: Path, *, mode: str, accounts: int, **more: Any
) -> AsyncIterator[Accounts]:
    """So many connected accounts at a server of this mode; no role runs when the block begins."""
    async with (
        OAuthServer(Client(CLIENT, SECRET), mode=mode, accessTokenLifetime=LIFE) as server,
        installed(servers, database, prefix, folder, **provider_settings(server), **more) as house,
    ):
        keyset = open_keyset(house.settings.keyset_path)
        found = Accounts(house, server, Vault(house.pool, LocalKeys(keyset), keyset))
        if accounts:
            first = await house.start("work", "project")
            await found.connect(accounts)
            await found.shown(accounts)
            await first.stop()
        yield found
