"""An account's webhooks: its endpoints, and which versions of their secrets sign."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.fields import Sealed
from domain.webhooks import (
    AccountSecretRotated,
    WebhookAdded,
    WebhookDisabled,
    WebhookEnabled,
    WebhookRemoved,
    WebhookRotated,
)
from projections.projection import Connection, Folded, Projection, columns
from schemas import topics

DDL: Final = """
create table webhooks (
    endpoint text primary key,
    account text not null,
    url text not null,
    description text,
    events text[] not null,
    disabled text,
    key_version integer not null,
    old_versions integer[] not null,
    old_until timestamptz[] not null,
    created_at timestamptz not null,
    partition integer not null,
    position bigint not null
);
create index webhooks_account on webhooks (account, position desc);
create table webhook_secrets (
    account text primary key,
    key_version integer not null,
    old_versions integer[] not null,
    old_until timestamptz[] not null
);
"""
ROW: Final = (
    "endpoint, account, url, description, events, disabled, key_version, old_versions, old_until, created_at, "
    "partition, position"
)
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """One endpoint. `url` and `description` are sealed under the account's data key; `disabled` says why it is, if it is.

    `events` is empty where it is told of all. `old_until`: until when each of `old_versions` signs as well.
    """

    endpoint: str
    account: str
    url: Sealed
    description: Sealed | None
    events: list[str]
    disabled: str | None
    key_version: int
    old_versions: list[int]
    old_until: list[datetime]
    created_at: datetime
    partition: int
    position: int


async def _added(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.executemany(
        f"insert into webhooks ({ROW}) values ($1, $2, $3, $4, $5, null, $6, '{{}}', '{{}}', $7, $8, $9)",  # noqa: S608 - names of our own
        [
            (
                seen.event.endpoint,
                seen.event.account,
                seen.event.url,
                seen.event.description,
                seen.event.events,
                seen.event.key_version,
                seen.at,
                seen.partition,
                seen.position,
            )
            for seen in events
        ],
    )


async def _rotated(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.executemany(
        "update webhooks set key_version = $2, old_versions = $3, old_until = $4 where endpoint = $1",
        [(seen.event.endpoint, *_secret(seen)) for seen in events],
    )


async def _own_rotated(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.executemany(
        "insert into webhook_secrets (account, key_version, old_versions, old_until) values ($1, $2, $3, $4) "
        "on conflict (account) do update set key_version = excluded.key_version, "
        "old_versions = excluded.old_versions, old_until = excluded.old_until",
        [(seen.event.account, *_secret(seen)) for seen in events],
    )


def _secret(seen: Folded) -> tuple[int, list[int], list[datetime]]:
    event = seen.event
    return event.key_version, [one.version for one in event.retiring], [one.until for one in event.retiring]


async def _switched(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.executemany(
        "update webhooks set disabled = $2 where endpoint = $1",
        [
            (seen.event.endpoint, seen.event.cause if isinstance(seen.event, WebhookDisabled) else None)
            for seen in events
        ],
    )


async def _removed(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute(
        "delete from webhooks where endpoint = any($1)", *columns([(seen.event.endpoint,) for seen in events])
    )


PROJECTION: Final = Projection(
    name="webhooks",
    topic=topics.ACCOUNT_EVENTS.name,
    tables=("webhooks", "webhook_secrets"),
    ddl=DDL,
    folds={
        (WebhookAdded,): _added,
        (WebhookRotated,): _rotated,
        (WebhookDisabled, WebhookEnabled): _switched,
        (WebhookRemoved,): _removed,
        (AccountSecretRotated,): _own_rotated,
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def by_id(pool: "Pool[Any]", account: str, endpoint: str) -> WebhookRow | None:
    """The account's endpoint of this id."""
    row = await pool.fetchrow(
        f"select {ROW} from webhooks where endpoint = $1 and account = $2",  # noqa: S608 - names of our own
        endpoint,
        account,
    )
    return WebhookRow(*row) if row else None


async def of_account(pool: "Pool[Any]", account: str, *, limit: int, before: int | None = None) -> list[WebhookRow]:
    """Endpoints of the account, the newest first: those whose position is below `before`."""
    rows = await pool.fetch(
        f"select {ROW} from webhooks where account = $1 and ($2::bigint is null or position < $2) "  # noqa: S608 - names of our own
        "order by position desc limit $3",
        account,
        before,
        limit,
    )
    return [WebhookRow(*row) for row in rows]


async def own_secret(pool: "Pool[Any]", account: str) -> int:
    """The version of the account's own secret."""
    return await pool.fetchval("select key_version from webhook_secrets where account = $1", account) or 1
