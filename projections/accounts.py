"""Accounts, their API keys, and the plans."""

from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from domain.account import AccountCreated, ApiKeyIssued, ApiKeyRevoked, PlanAssigned, PlanDefined
from domain.plans import BUILT_IN, Limits, Plan
from projections.projection import Connection, Folded, Projection, columns, last_of_each
from schemas import topics

DDL: Final = """
create table accounts (
    account text primary key,
    plan text not null
);
create table api_keys (
    key text primary key,
    account text not null,
    prefix text not null,
    hash text not null unique,
    scopes text[] not null
);
create table plans (
    name text primary key,
    default_ttl_minutes integer not null,
    longest_ttl_minutes integer not null,
    live_mailboxes integer not null,
    live_messages integer not null,
    position bigint not null
);
"""

Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose an API key is, and what it may."""

    account: str
    key: str
    scopes: list[str]
    plan: Plan


async def _plan_defined(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (
            seen.event.name,
            seen.event.limits.default_ttl_minutes,
            seen.event.limits.longest_ttl_minutes,
            seen.event.limits.live_mailboxes,
            seen.event.limits.live_messages,
            seen.position,
        )
        for seen in last_of_each(events, lambda event: event.name)
    ]
    await connection.execute(
        "insert into plans select * from unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::int[], $6::bigint[]) "
        "on conflict (name) do update set default_ttl_minutes = excluded.default_ttl_minutes, "
        "longest_ttl_minutes = excluded.longest_ttl_minutes, live_mailboxes = excluded.live_mailboxes, "
        "live_messages = excluded.live_messages, position = excluded.position",
        *columns(rows),
    )


async def _account_created(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [(seen.event.account, seen.event.plan) for seen in events]
    await connection.execute("insert into accounts select * from unnest($1::text[], $2::text[])", *columns(rows))


async def _plan_assigned(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [(seen.event.account, seen.event.plan) for seen in last_of_each(events, lambda event: event.account)]
    await connection.execute(
        "update accounts a set plan = e.plan from unnest($1::text[], $2::text[]) as e(account, plan) "
        "where a.account = e.account",
        *columns(rows),
    )


async def _key_issued(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.executemany(
        "insert into api_keys (key, account, prefix, hash, scopes) values ($1, $2, $3, $4, $5)",
        [(e.key, e.account, e.prefix, e.hash, e.scopes) for e in (seen.event for seen in events)],
    )


async def _key_revoked(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute("delete from api_keys where key = any($1)", [seen.event.key for seen in events])


PROJECTION: Final = Projection(
    name="accounts",
    topic=topics.ACCOUNT_EVENTS.name,
    tables=("accounts", "api_keys", "plans"),
    ddl=DDL,
    folds={
        (PlanDefined,): _plan_defined,
        (AccountCreated,): _account_created,
        (PlanAssigned,): _plan_assigned,
        (ApiKeyIssued,): _key_issued,
        (ApiKeyRevoked,): _key_revoked,
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def plan(pool: "Pool[Any]", name: str) -> Plan | None:
    """The plan as it is now: as it was defined last, or as every installation begins with it."""
    row = await pool.fetchrow(
        "select default_ttl_minutes, longest_ttl_minutes, live_mailboxes, live_messages, position from plans where name = $1",
        name,
    )
    return Plan(name, Limits(*row[:4]), row[4]) if row else BUILT_IN.get(name)


async def holder(pool: "Pool[Any]", key_hash: str) -> Holder | None:
    """Whose the API key with this SHA-256 (hex) is."""
    row = await pool.fetchrow(
        "select a.account, k.key, k.scopes, a.plan, p.default_ttl_minutes, p.longest_ttl_minutes, p.live_mailboxes, "
        "p.live_messages, p.position from api_keys k join accounts a using (account) left join plans p on p.name = a.plan "
        "where k.hash = $1",
        key_hash,
    )
    if row is None:
        return None
    defined = Plan(row[3], Limits(*row[4:8]), row[8]) if row[8] is not None else BUILT_IN[row[3]]
    return Holder(row[0], row[1], row[2], defined)
