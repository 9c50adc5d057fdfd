"""The vault: the tokens and passwords of connections, each connection's under a data key of its own (DESIGN 3.3).

Without a row no provider is called: to revoke a connection is to delete its row. Who refreshes a token has leased its row
first, and switches to the new tokens only while the lease is still theirs and nobody else has switched; the refresh token
before is kept until the newest has been taken by the provider.

Fields are bound to their connection and their name: moved to another row or column they can't be opened.
"""

import asyncio
import logging
import secrets as random_bits
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter

from domain.connection_events import Provider
from domain.tokens import OwnServers, Secrets
from gateways.stores.keyset import Keyset, KeysetError
from gateways.stores.kms import KeyEncryption, KeyGone
from gateways.stores.postgres import Pool
from gateways.stores.remembered_keys import RememberedKeys
from gateways.stores.sealing import Unsealable, new_data_key, open_bytes, place, seal_bytes

log = logging.getLogger(__name__)

SERVERS: Final = TypeAdapter(OwnServers)

ROW: Final = (
    "connection, user_id, provider, kid, wrapped, version, fingerprint, access, refresh, previous, servers, expires_at"
)
#: Beyond every version that the tables have heard of, too: a row that was lost begins no second count.
PUT: Final = """
insert into vault (connection, user_id, provider, kid, wrapped, version, fingerprint, access, refresh, servers, expires_at)
values ($1, $2, $3, $4, $5, 1 + coalesce((select token_version from connections where connection = $1), 0),
    $6, $7, $8, $9, $10)
on conflict (connection) do update set kid = excluded.kid, wrapped = excluded.wrapped,
    version = greatest(vault.version + 1, excluded.version),
    fingerprint = excluded.fingerprint, access = excluded.access, refresh = excluded.refresh, previous = null,
    servers = excluded.servers, expires_at = excluded.expires_at, lease = null, leased_until = null, switched_at = now()
returning version
"""
#: In one order, and past what others hold: two who lease at once never wait for each other.
LEASE: Final = f"""
with free as (
    select connection from vault where connection = any($1) and coalesce(leased_until <= now(), true)
    order by connection for update skip locked)
update vault v set lease = $2, leased_until = now() + $3 * interval '1 second' from free
where v.connection = free.connection returning v.{ROW.replace(", ", ", v.")}
"""  # noqa: S608 - names of our own
SWITCH: Final = """
update vault set version = version + 1, fingerprint = $4, access = $5, refresh = $6, previous = $7, expires_at = $8,
    lease = null, leased_until = null, switched_at = now()
where connection = $1 and lease = $2 and leased_until > now() and version = $3 returning version
"""
RELEASE: Final = """
update vault set leased_until = now() + $3 * interval '1 second' where connection = any($1) and lease = $2
"""
ORPHANS: Final = f"""
select v.{ROW.replace(", ", ", v.")} from vault v left join connections c using (connection)
where v.switched_at < now() - $1 * interval '1 second' and (c.connection is null or c.state = 'revoked') limit 1000
"""  # noqa: S608 - names of our own


@dataclass(frozen=True, slots=True)
class Held:
    """What the vault holds of one connection, opened. `previous`: the refresh token before, until the newest is proved."""

    connection: str
    user: str
    provider: Provider
    version: int
    fingerprint: str
    secrets: Secrets = field(repr=False)
    previous: str | None = field(repr=False)
    data_key: bytes = field(repr=False)


class Vault:
    """Secrets by connection (`con_…`). Everything raises what Postgres or the key-encryption key's keeper raise."""

    def __init__(self, pool: Pool, keys: KeyEncryption, keyset: Keyset) -> None:
        self._pool = pool
        self._keys = keys
        self._keyset = keyset
        self._known: RememberedKeys[bytes] = RememberedKeys()

    async def put(self, connection: str, user: str, provider: str, secrets: Secrets, fingerprint: str) -> int:
        """Keeps what consent led to, in place of whatever was there, and answers its version.

        Under a new data key: what an earlier one could open is not worth keeping.
        """
        data_key = new_data_key()
        kid, wrapped = await self._keys.wrap(data_key, connection)
        version: int = await self._pool.fetchval(
            PUT,
            connection,
            user,
            provider,
            kid,
            wrapped,
            fingerprint,
            _sealed(data_key, connection, "access", secrets.access_token),
            _sealed(data_key, connection, "refresh", secrets.refresh_token),
            _sealed(data_key, connection, "servers", _servers_text(secrets.servers)),
            secrets.expires_at,
        )
        self._known.add(wrapped, data_key)
        return version

    async def get(self, connection: str) -> Held | None:
        """None where there is nothing: it was never connected, or is revoked."""
        row = await self._pool.fetchrow(f"select {ROW} from vault where connection = $1", connection)  # noqa: S608 - as above
        return await self._held(row) if row else None

    async def lease(self, connections: Sequence[str], *, seconds: float, holder: str) -> list[Held]:
        """Those of them that nobody had leased, or whose lease had lapsed by Postgres's clock: leased to the holder now.

        One that can't be opened is left out, and told in the logs: it is in nobody's way. Those whose wrapping keys can't be
        reached are free again at once; raises where that is all of them.
        """
        rows = await self._pool.fetch(LEASE, list(connections), holder, seconds)
        held, unreached = await self._openable(rows)
        if unreached:
            await self._pool.execute(RELEASE, [connection for connection, _ in unreached], holder, 0)
            if not held:
                raise unreached[0][1]
        return held

    async def switch(self, held: Held, *, holder: str, secrets: Secrets, fingerprint: str) -> int | None:
        """Writes new tokens beside the old and switches to them: their version, or None where the lease was lost.

        The lease is over then. A refresh token that was replaced is kept until the new one has been taken.
        """
        replaced = held.secrets.refresh_token if secrets.refresh_token != held.secrets.refresh_token else None
        version: int | None = await self._pool.fetchval(
            SWITCH,
            held.connection,
            holder,
            held.version,
            fingerprint,
            _sealed(held.data_key, held.connection, "access", secrets.access_token),
            _sealed(held.data_key, held.connection, "refresh", secrets.refresh_token),
            _sealed(held.data_key, held.connection, "previous", replaced),
            secrets.expires_at,
        )
        return version

    async def release(self, connection: str, *, holder: str, seconds: float = 0) -> None:
        """Ends the lease of this holder so many seconds from now; nothing happens where it is somebody else's."""
        await self._pool.execute(RELEASE, [connection], holder, seconds)

    async def destroy(self, connection: str) -> bool:
        """Whether there was anything: from now on nothing of it can be had."""
        gone = await self._pool.fetchval("delete from vault where connection = $1 returning wrapped", connection)
        self._known.forget(gone or b"")
        return gone is not None

    async def orphans(self, *, older_than: float) -> list[Held]:
        """Rows written so many seconds ago or more, whose connection is not in the tables or is revoked there."""
        held, _ = await self._openable(await self._pool.fetch(ORPHANS, older_than))
        return held

    def fingerprint_of(self, secrets: Secrets) -> str:
        """Tells these tokens from others, and nothing about them; a password's says not even whether it has changed."""
        token = secrets.refresh_token or secrets.access_token
        return self._keyset.digest("token", token) if token else random_bits.token_urlsafe(32)

    async def _openable(self, rows: Sequence[Any]) -> tuple[list[Held], list[tuple[str, OSError]]]:
        """Those that can be opened, and those whose wrapping keys can't be reached."""
        held, unreached = [], []
        found = await asyncio.gather(*[self._held(row) for row in rows], return_exceptions=True)
        for row, one in zip(rows, found, strict=True):
            if isinstance(one, Held):
                held.append(one)
            elif isinstance(one, OSError):
                unreached.append((row["connection"], one))
            elif isinstance(one, (Unsealable, KeysetError)):
                log.error("tokens can't be opened", extra={"connection": row["connection"], "cause": repr(one)})
            else:
                raise one
        return held, unreached

    async def _held(self, row: Any) -> Held:
        connection, data_key = row["connection"], await self._data_key(row)

        def opened(name: str) -> str | None:
            at = place("vault", connection, name)
            return None if row[name] is None else open_bytes(data_key, row[name], at).decode()

        servers = opened("servers")
        secrets = Secrets(
            opened("access"), opened("refresh"), row["expires_at"], SERVERS.validate_json(servers) if servers else None
        )
        return Held(
            connection,
            row["user_id"],
            row["provider"],
            row["version"],
            row["fingerprint"],
            secrets,
            opened("previous"),
            data_key,
        )

    async def _data_key(self, row: Any) -> bytes:
        data_key = self._known.get(row["wrapped"])
        if data_key is None:
            try:
                data_key = await self._keys.unwrap(row["kid"], row["wrapped"], row["connection"])
            except KeyGone as error:
                raise Unsealable(f"vault|{row['connection']}") from error
            self._known.add(row["wrapped"], data_key)
        return data_key


def _sealed(data_key: bytes, connection: str, name: str, text: str | None) -> bytes | None:
    return None if text is None else seal_bytes(data_key, text.encode(), place("vault", connection, name))


def _servers_text(servers: OwnServers | None) -> str | None:
    return None if servers is None else SERVERS.dump_json(servers).decode()
