"""Deliveries of webhooks: what was told to whom, each attempt, and what comes next."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.callbacks import (
    Callback,
    CallbackAbandoned,
    CallbackDeferred,
    CallbackDelivered,
    CallbackRequested,
    CallbackResent,
)
from domain.fields import Sealed
from projections.projection import Connection, Folded, Projection
from schemas import topics
from schemas.envelope import stamp

DDL: Final = """
create table deliveries (
    delivery text primary key,
    account text not null,
    endpoint text,
    type text not null,
    message text,
    body text not null,
    url text,
    user_id text,
    status text not null,
    attempts jsonb not null,
    next_at timestamptz,
    created_at timestamptz not null,
    partition integer not null,
    position bigint not null
);
create index deliveries_endpoint on deliveries (endpoint, position desc);
create index deliveries_pending on deliveries (endpoint) where status = 'pending';
create index deliveries_message on deliveries (message, position desc) where message is not null;
create index deliveries_callbacks on deliveries (account, position desc) where endpoint is null;
"""
ROW: Final = (
    "delivery, account, endpoint, type, message, body, url, user_id, status, attempts, next_at, created_at, partition, "
    "position"
)
STATUSES: Final = ("pending", "delivered", "failed")
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One delivery. `attempts` is the JSON of a list, the oldest first: `at`, `status`, `tookMs`, `error`."""

    delivery: str
    account: str
    endpoint: str | None
    type: str
    message: str | None
    body: str
    url: Sealed | None
    user: str | None
    status: str
    attempts: str
    next_at: datetime | None
    created_at: datetime
    partition: int
    position: int

    @property
    def callback(self) -> Callback:
        """What was told, as it is told once more."""
        return Callback(
            self.delivery, self.account, self.endpoint, self.type, self.body, self.message, self.url, self.user
        )


async def _requested(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.executemany(
        f"insert into deliveries ({ROW}) values ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', '[]', $9, $9, $10, $11)",  # noqa: S608 - names of our own
        [
            (
                said.delivery,
                said.account,
                said.endpoint,
                said.type,
                said.message,
                said.body,
                said.url,
                said.user,
                seen.at,
                seen.partition,
                seen.position,
            )
            for seen in events
            for said in [seen.event.callback]
        ],
    )


async def _went_on(connection: "Connection[Any]", events: list[Folded]) -> None:
    """One after the other: what became of a delivery last is what holds."""
    await connection.executemany(
        "update deliveries set status = $2, next_at = $3, attempts = attempts || $4::jsonb where delivery = $1",
        [_change(seen) for seen in events],
    )


def _change(seen: Folded) -> tuple[str, str, datetime | None, str]:
    event = seen.event
    match event:
        case CallbackDelivered():
            return event.delivery, "delivered", None, _attempt(event, None)
        case CallbackDeferred():
            return event.callback.delivery, "pending", event.next_at, _attempt(event, event.error)
        case CallbackAbandoned():
            return event.callback.delivery, "failed", None, _attempt(event, event.error)
        case CallbackResent():
            return event.callback.delivery, "pending", seen.at, "[]"
        case _:
            raise TypeError(type(event).__name__)


def _attempt(event: CallbackDelivered | CallbackDeferred | CallbackAbandoned, error: str | None) -> str:
    return json.dumps([{"at": stamp(event.at), "status": event.status, "tookMs": event.took_ms, "error": error}])


PROJECTION: Final = Projection(
    name="deliveries",
    topic=topics.WEBHOOK_EVENTS.name,
    tables=("deliveries",),
    ddl=DDL,
    folds={
        (CallbackRequested,): _requested,
        (CallbackDelivered, CallbackDeferred, CallbackAbandoned, CallbackResent): _went_on,
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def by_id(pool: "Pool[Any]", endpoint: str, delivery: str) -> DeliveryRow | None:
    """The delivery of this id to this endpoint."""
    row = await pool.fetchrow(
        f"select {ROW} from deliveries where delivery = $1 and endpoint = $2",  # noqa: S608 - names of our own
        delivery,
        endpoint,
    )
    return DeliveryRow(*row) if row else None


async def _page(
    pool: "Pool[Any]", which: str, *keys: str, limit: int, before: int | None, status: str | None
) -> list[DeliveryRow]:
    """The newest of those that `which` chooses by these keys, which stand in one partition."""
    place, state, most = (f"${len(keys) + number}" for number in (1, 2, 3))
    rows = await pool.fetch(
        f"select {ROW} from deliveries where {which} and ({place}::bigint is null or position < {place}) "  # noqa: S608 - names of our own
        f"and ({state}::text is null or status = {state}) order by position desc limit {most}",
        *keys,
        before,
        status,
        limit,
    )
    return [DeliveryRow(*row) for row in rows]


async def of_endpoint(
    pool: "Pool[Any]", endpoint: str, *, limit: int, before: int | None = None, status: str | None = None
) -> list[DeliveryRow]:
    """Deliveries to the endpoint, the newest first: those whose position is below `before`, and that are in this state."""
    return await _page(pool, "endpoint = $1", endpoint, limit=limit, before=before, status=status)


async def about(pool: "Pool[Any]", account: str, message: str, delivery: str) -> DeliveryRow | None:
    """The delivery of this id that tells the account of this message."""
    row = await pool.fetchrow(
        f"select {ROW} from deliveries where delivery = $1 and account = $2 and message = $3",  # noqa: S608 - names of our own
        delivery,
        account,
        message,
    )
    return DeliveryRow(*row) if row else None


async def message_of(pool: "Pool[Any]", delivery: str) -> str | None:
    """The message that a delivery tells of, if it is there and tells of one."""
    found: str | None = await pool.fetchval("select message from deliveries where delivery = $1", delivery)
    return found


async def of_message(
    pool: "Pool[Any]",
    account: str,
    message: str,
    *,
    limit: int,
    before: tuple[datetime, str] | None = None,
    status: str | None = None,
) -> list[DeliveryRow]:
    """What tells the account of the message, whomever it is told to, the newest first: those before that time and delivery,
    and that are in this state. They stand in several partitions, whose positions say nothing of each other.
    """
    rows = await pool.fetch(
        f"select {ROW} from deliveries where message = $1 and account = $2 "  # noqa: S608 - names of our own
        "and ($3::timestamptz is null or (created_at, delivery) < ($3, $4::text)) "
        "and ($5::text is null or status = $5) order by created_at desc, delivery desc limit $6",
        message,
        account,
        *(before or (None, None)),
        status,
        limit,
    )
    return [DeliveryRow(*row) for row in rows]


async def of_callbacks(
    pool: "Pool[Any]", account: str, *, limit: int, before: int | None = None, status: str | None = None
) -> list[DeliveryRow]:
    """Deliveries to where sends themselves say that they be told of; otherwise as `of_endpoint`."""
    return await _page(pool, "account = $1 and endpoint is null", account, limit=limit, before=before, status=status)


async def since(
    pool: "Pool[Any]", endpoint: str, at: datetime, *, limit: int, status: str | None = None
) -> list[DeliveryRow]:
    """Deliveries to the endpoint that were requested at that time or later, the oldest first."""
    rows = await pool.fetch(
        f"select {ROW} from deliveries where endpoint = $1 and created_at >= $2 "  # noqa: S608 - names of our own
        "and ($3::text is null or status = $3) order by position limit $4",
        endpoint,
        at,
        status,
        limit,
    )
    return [DeliveryRow(*row) for row in rows]
