"""A vault and a keyring on a database of a test's own, and what a test keeps in them."""

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain.tokens import MailServer, OAuthClient, OwnServers, Secrets
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset, open_keyset
from gateways.stores.kms import KeyKeeper, LocalKeys
from gateways.stores.postgres import Pool
from gateways.stores.vault import Vault


class KeyHouse:
    """`another()` is what another process would have: a keyset, a keyring and a vault that remember nothing yet."""

    def __init__(self, pool: Pool, path: Path, keys: KeyKeeper | None = None) -> None:
        self.pool, self.path = pool, path
        self.keyset: Keyset = open_keyset(path)
        self.keys: KeyKeeper = keys or LocalKeys(self.keyset)
        self.keyring = Keyring(pool, self.keys)
        self.vault = Vault(pool, self.keys, self.keyset)

    def another(self, keys: KeyKeeper | None = None) -> "KeyHouse":
        return KeyHouse(self.pool, self.path, keys)

    async def put(self, connection: str, secrets: Secrets | None = None) -> int:
        kept = secrets or tokens(connection)
        return await self.vault.put(connection, "usr_1", "gmail", kept, self.vault.fingerprint_of(kept))

    async def kids(self) -> dict[str, set[str]]:
        """The ids of the keys that each table's rows are wrapped by."""
        return {
            table: {row["kid"] for row in await self.pool.fetch(f"select distinct kid from {table}")}
            for table in ("keyring", "vault")
        }

    async def opened(self) -> tuple[int, int]:
        """How many rows of keyring and vault can be opened, by one who remembers nothing; raises where one can't."""
        fresh = self.another()
        rows = await self.pool.fetch("select subject, kid, wrapped from keyring")
        for row in rows:
            await fresh.keys.unwrap(row["kid"], row["wrapped"], row["subject"])
        connections = [row["connection"] for row in await self.pool.fetch("select connection from vault")]
        held = await asyncio.gather(*[fresh.vault.get(connection) for connection in connections])
        assert all(held)
        return len(rows), len(held)


def tokens(name: str, number: int = 1) -> Secrets:
    """Tokens that tell whose and which they are."""
    return Secrets(f"access-{name}-{number}", f"refresh-{name}-{number}", datetime(2030, 1, 1, tzinfo=UTC))


def own_servers(canary: str) -> OwnServers:
    """Servers of somebody's own, with the canary wherever a secret can be."""
    smtp = MailServer("smtp.example.org", 465, "tls", "ann", f"{canary}-smtp")
    imap = MailServer("imap.example.org", 993, "tls", "ann", f"{canary}-imap")
    client = OAuthClient("https://a.example/auth", "https://a.example/token", "client", f"{canary}-client", ["mail"])
    return OwnServers(smtp, imap, client)


async def everything_kept(pool: Pool) -> list[str]:
    """Every row of every table, as text."""
    names = await pool.fetch(
        "select schemaname || '.' || tablename from pg_tables where schemaname in ('read', 'kept', 'public')"
    )
    return [row[0] for (name,) in names for row in await pool.fetch(f"select t::text from {name} t")]


def spellings(secret: str) -> list[str]:
    """How a secret may stand somewhere: plain, in hex, and in base64 at each of its three shifts."""
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw).decode()[4:-4] for shift in range(3)]
    return [secret, raw.hex(), *shifted]


def has_any(texts: list[str], secret: str) -> bool:
    return any(spelling in text for text in texts for spelling in spellings(secret))


class Unreachable:
    """A keeper of keys that can't be reached while `down`; otherwise the one it stands for."""

    def __init__(self, keys: Any, error: BaseException) -> None:
        self._keys, self._error, self.down = keys, error, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        if self.down:
            raise self._error
        return await self._keys.wrap(data_key, context)

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        if self.down:
            raise self._error
        return await self._keys.unwrap(kid, wrapped, context)


def reported() -> None:
    """A rotation was reported: a place to be killed at."""
