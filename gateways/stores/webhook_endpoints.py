"""Whom to tell of what, and where: what the tables say of webhooks, opened for those who deliver."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from domain.callbacks import Callback, Receivers, Target
from domain.fields import Sealed
from gateways.stores.keyring import Keyring
from gateways.stores.postgres import Pool
from gateways.stores.sealing import Unsealable, place, unseal
from schemas.envelope import Source

WANTING: Final = """
select endpoint from webhooks where account = $1 and disabled is null and created_at <= $3
    and (events = '{}' or $2 = any(events)) order by endpoint
"""
WANTING_OF_SEND: Final = f"""
select array({WANTING}) as endpoints, s.user_id, s.callback from (values ($4)) asked (send) left join sends s using (send)
"""  # noqa: S608 - a constant
SHOWN: Final = """
select coalesce(bool_and(position > $3), false) from checkpoints
where topic = $1 and partition = $2 and name not like 'effect.%'
"""
ENDPOINT: Final = """
select w.url, w.disabled, w.key_version, w.old_versions, w.old_until, coalesce(jsonb_array_length(d.attempts), 0)
from webhooks w left join deliveries d on d.delivery = $2 where w.endpoint = $1
"""
BARE: Final = """
select s.key_version, s.old_versions, s.old_until, coalesce(jsonb_array_length(d.attempts), 0)
from (select $1::text as account) a left join webhook_secrets s using (account)
left join deliveries d on d.delivery = $2
"""


async def account_key(keyring: Keyring, account: str) -> bytes:
    """The data key that an account's webhooks are sealed under, made where there is none yet."""
    found = (await keyring.get([account])).get(account)
    if found is None:
        try:
            return await keyring.create(account)
        except asyncpg.UniqueViolationError:  # somebody else has made it meanwhile
            found = (await keyring.get([account]))[account]
    return found


class WebhookEndpoints:
    """Everything raises what Postgres and the keyring raise where they can't be reached."""

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    async def wanting(self, account: str, kind: str, at: datetime) -> Sequence[str]:
        """The account's enabled endpoints that were there at that time and want events of this kind."""
        return [row["endpoint"] for row in await self._pool.fetch(WANTING, account, kind, at)]

    async def owner_of(self, connection: str) -> str | None:
        """The account that a connection belongs to; None where the tables don't show it."""
        found: str | None = await self._pool.fetchval("select owner from connections where connection = $1", connection)
        return found

    async def wanting_of_send(self, send: str, account: str, kind: str, at: datetime) -> Receivers:
        """The same endpoints, with that of the send's `callbackUrl` among them where the account has one."""
        endpoints, user, callback = await self._pool.fetchrow(WANTING_OF_SEND, account, kind, at, send)
        if user is None or callback is None:
            return Receivers(endpoints, known=user is not None)
        url = await self._opened(user, callback, place("send", send, "callback"))
        if url is None:
            return Receivers(endpoints)
        for one in await self._pool.fetch("select endpoint, url from webhooks where account = $1", account):
            if url == await self._opened(account, one["url"], place("webhook", one["endpoint"], "url")):
                return Receivers(sorted({*endpoints, one["endpoint"]}))
        return Receivers(endpoints, callback)

    async def shown(self, source: Source) -> bool:
        """Whether every table that shows events of this record's topic is past it."""
        return bool(await self._pool.fetchval(SHOWN, source.topic, source.partition, source.offset))

    async def target(self, callback: Callback) -> Target:
        """Where it goes, as things stand, and how many attempts are on record."""
        if callback.endpoint is None:
            return await self._bare(callback)
        row = await self._pool.fetchrow(ENDPOINT, callback.endpoint, callback.delivery)
        if row is None:
            return Target(refused="endpoint_removed")
        url, disabled, version, old, until, attempts = row
        opened = await self._opened(callback.account, url, place("webhook", callback.endpoint, "url"))
        if opened is None or disabled is not None:
            return Target(attempts=attempts, refused="endpoint_removed" if opened is None else "endpoint_disabled")
        return Target(opened, callback.endpoint, _signing(version, old, until), attempts)

    async def _bare(self, callback: Callback) -> Target:
        version, old, until, attempts = await self._pool.fetchrow(BARE, callback.account, callback.delivery)
        at = place("send", callback.message or "", "callback")
        opened = await self._opened(callback.user or "", callback.url or Sealed(""), at)
        if opened is None:
            return Target(attempts=attempts, refused="endpoint_removed")
        return Target(opened, callback.account, _signing(version or 1, old or [], until or []), attempts)

    async def _opened(self, subject: str, sealed: Sealed, at: bytes) -> str | None:
        """None where the key is gone: whom it belonged to was erased."""
        data_key = (await self._keyring.get([subject])).get(subject)
        if data_key is None:
            return None
        try:
            return unseal(data_key, sealed, at).decode()
        except (Unsealable, ValueError):
            return None


def _signing(version: int, old: Sequence[int], until: Sequence[Any]) -> tuple[int, ...]:
    """The versions that sign, the newest first."""
    now = datetime.now(UTC)
    still = [one for one, end in zip(old, until, strict=True) if end > now]
    return (version, *sorted(still, reverse=True))
