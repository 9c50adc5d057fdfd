"""Questions about all accounts and plans, as an operator asks them; the tables are those of `projections/accounts.py`."""

from dataclasses import dataclass
from typing import Any

import asyncpg

from domain.plans import BUILT_IN, Limits, Plan

Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account; `keys` are the ids of its API keys, what each begins with, and the scopes that narrow it."""

    account: str
    plan: str
    keys: list[tuple[str, str, list[str]]]


async def accounts(pool: "Pool[Any]") -> list[AccountRow]:
    """Every account, the oldest first."""
    rows = await pool.fetch(
        "select a.account, a.plan, array_agg((k.key, k.prefix, k.scopes) order by k.key) filter (where k.key is not null) "
        "from accounts a left join api_keys k using (account) group by a.account, a.plan order by a.account"
    )
    return [AccountRow(account, plan, [tuple(key) for key in keys or []]) for account, plan, keys in rows]


async def account_of_key(pool: "Pool[Any]", key: str) -> str | None:
    """The account that holds the API key with this id."""
    found: str | None = await pool.fetchval("select account from api_keys where key = $1", key)
    return found


async def plans(pool: "Pool[Any]") -> list[Plan]:
    """Every plan as it is now, by name: as it was defined last, or as every installation begins with it."""
    rows = await pool.fetch(
        "select name, default_ttl_minutes, longest_ttl_minutes, live_mailboxes, live_messages, position from plans"
    )
    defined = {row[0]: Plan(row[0], Limits(*row[1:5]), row[5]) for row in rows}
    return [plan for _, plan in sorted((BUILT_IN | defined).items())]
