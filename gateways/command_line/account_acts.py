"""What the words below `account` and `plan` do."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from domain.account import (
    PLANS_KEY,
    AccountCommandRefused,
    AssignPlan,
    CreateAccount,
    DefinePlan,
    IssueApiKey,
    PlanRefused,
    RevokeApiKey,
)
from domain.plans import LARGEST_COUNT, LONGEST_LIFETIME_MINUTES, Limits
from domain.scopes import SCOPES, unknown_among
from gateways.command_line.api_keys import hash_of, new_api_key, shown_prefix
from gateways.command_line.failures import FAILED, NOT_FOUND, USAGE, Failed
from gateways.command_line.installation import Desk, Installation, desk_of, tables_of
from gateways.stores.postgres import Pool
from projections import account_lists
from schemas.ids import new_id

PLAN_FAULTS: Final = {
    "not_positive": "Every limit of a plan must be 1 or more.",
    "beyond_longest_lifetime": f"No inbox lives longer than {LONGEST_LIFETIME_MINUTES} minutes: lower --longest-ttl.",
    "too_large": f"A plan allows {LARGEST_COUNT} of anything at the most.",
    "default_beyond_longest": "The default lifetime is longer than the longest: change --default-ttl or --longest-ttl.",
}


async def create(installation: Installation, plan: str, scopes: list[str]) -> dict[str, str]:
    """A new account on this plan, and its first key. Raises Failed: 3 for a plan there is not, 2 for such a scope."""
    _assert_scopes(scopes)
    async with desk_of(installation) as desk:
        await _assert_plan(desk.pool, plan)
        account = new_id("acc")
        await _decide(desk, CreateAccount(account, plan))
        return await _issue(desk, account, scopes)


async def issue(installation: Installation, account: str, scopes: list[str]) -> dict[str, str]:
    """One more key for an account. Raises Failed: 3 for an account there is not, 2 for such a scope."""
    _assert_scopes(scopes)
    async with desk_of(installation) as desk:
        return await _issue(desk, account, scopes)


async def revoke(installation: Installation, key: str) -> dict[str, str]:
    """Ends a key, named by its id. Raises Failed (3) for one there is not."""
    async with desk_of(installation) as desk:
        account = await account_lists.account_of_key(desk.pool, key)
        if account is None:
            raise _no_such_key(key)
        await _decide(desk, RevokeApiKey(account, key))
        return {"account": account, "key": key}


async def assign(installation: Installation, account: str, plan: str) -> dict[str, str]:
    """Another plan for an account. Raises Failed (3) where there is no such account or plan."""
    async with desk_of(installation) as desk:
        await _assert_plan(desk.pool, plan)
        await _decide(desk, AssignPlan(account, plan))
        return {"account": account, "plan": plan}


async def listed(installation: Installation) -> list[dict[str, Any]]:
    """One row for each account: its id, its plan, and its keys as `id (beginning…)`, with the scopes that narrow it."""
    async with tables_of(installation) as pool:
        return [
            {"account": found.account, "plan": found.plan, "keys": [_key_text(*key) for key in found.keys]}
            for found in await account_lists.accounts(pool)
        ]


def _key_text(key: str, begins: str, scopes: list[str]) -> str:
    return f"{key} ({begins}…{''.join(f' {scope}' for scope in scopes)})"


async def plans(installation: Installation) -> list[dict[str, Any]]:
    """One row for each plan: its name and limits, times in minutes."""
    async with tables_of(installation) as pool:
        return [_plan_row(plan.name, plan.limits) for plan in await account_lists.plans(pool)]


async def define_plan(installation: Installation, name: str, given: Mapping[str, int]) -> dict[str, Any]:
    """Changes the given limits of a plan and keeps the others; a new plan needs all of them. Raises Failed (2)."""
    async with desk_of(installation) as desk:
        known = {plan.name: plan.limits for plan in await account_lists.plans(desk.pool)}
        if name not in known and len(given) < len(Limits.__dataclass_fields__):
            raise Failed(
                f"There is no plan {name} yet, and a new one needs all of --messages, --mailboxes, --default-ttl and "
                f"--longest-ttl. The plans are {_list(known)}.",
                code=USAGE,
            )
        limits = replace(known[name], **given) if name in known else Limits(**given)
        event = await desk.ask(DefinePlan(name, limits), key=PLANS_KEY, subject=name)
        if isinstance(event, PlanRefused):
            raise Failed(PLAN_FAULTS[event.reason], code=USAGE)
        return _plan_row(name, limits)


def _plan_row(name: str, limits: Limits) -> dict[str, Any]:
    return {"plan": name, **asdict(limits)}


async def _issue(desk: Desk, account: str, scopes: list[str]) -> dict[str, str]:
    key = new_api_key()
    await _decide(desk, IssueApiKey(account, new_id("key"), shown_prefix(key), hash_of(key), scopes))
    return {"account": account, "key": key}


async def _decide(desk: Desk, command: CreateAccount | AssignPlan | IssueApiKey | RevokeApiKey) -> None:
    event = await desk.ask(command, key=command.account, subject=command.account)
    if not isinstance(event, AccountCommandRefused):
        return
    match event.reason:
        case "unknown_account":
            raise Failed(
                f"There is no account {event.account}: `python main.py account list` shows them.", code=NOT_FOUND
            )
        case "unknown_key":
            raise _no_such_key(command.key if isinstance(command, RevokeApiKey) else "")
        case "unknown_scope":
            raise _no_such_scope(command.scopes if isinstance(command, IssueApiKey) else [])
        case "already":
            raise Failed(f"{event.account} has that already.", code=FAILED)


async def _assert_plan(pool: Pool, name: str) -> None:
    known = [plan.name for plan in await account_lists.plans(pool)]
    if name not in known:
        raise Failed(
            f"There is no plan {name}. The plans are {_list(known)}; `python main.py plan set` makes another.",
            code=NOT_FOUND,
        )


def _no_such_key(key: str) -> Failed:
    return Failed(f"There is no key {key}: `python main.py account list` shows the ids of all keys.", code=NOT_FOUND)


def _assert_scopes(scopes: list[str]) -> None:
    if unknown := unknown_among(scopes):
        raise _no_such_scope(unknown)


def _no_such_scope(scopes: list[str]) -> Failed:
    return Failed(f"There is no scope {_list(scopes)}: the scopes are {', '.join(SCOPES)}.", code=USAGE)


def _list(names: Mapping[str, Any] | list[str]) -> str:
    return ", ".join(sorted(names))
