"""`account`: the people and teams who may use an installation, and their keys."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import typer

from domain.scopes import SCOPES
from gateways.command_line.output import Output, show_one, show_rows

Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its id, acc_…, as `account list` shows it.")]

Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="SCOPE", help=f"Narrow the key to this; repeatable. One of {', '.join(SCOPES)}."),
]


def account_words(installation: Callable[[], Any]) -> typer.Typer:
    """The words below `account`, for the installation that is found when one of them is used."""
    words = typer.Typer(no_args_is_help=True, help="Accounts and their API keys.")

    @words.command()
    def create(
        plan: Annotated[str, typer.Option(help="The plan it is on, one of `plan list`.")] = "free",
        scope: Scopes = None,
        output: Output = None,
    ) -> None:
        """Create an account and its first API key, which is shown this once."""
        made = asyncio.run(_acts().create(installation(), plan, scope or []))
        show_one(made, _shown_once(made), output)

    @words.command("list")
    def list_(output: Output = None) -> None:
        """Every account, its plan and its keys."""
        show_rows(asyncio.run(_acts().listed(installation())), output, none=_NONE)

    @words.command()
    def key(account: Account, scope: Scopes = None, output: Output = None) -> None:
        """Issue one more API key to an account, which is shown this once."""
        made = asyncio.run(_acts().issue(installation(), account, scope or []))
        show_one(made, _shown_once(made), output)

    @words.command()
    def revoke(
        key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_…, not the key itself.")],
        output: Output = None,
    ) -> None:
        """Revoke an API key, at once and for good."""
        revoked = asyncio.run(_acts().revoke(installation(), key))
        show_one(revoked, f"Revoked {revoked['key']} of {revoked['account']}.", output)

    @words.command()
    def plan(
        account: Account,
        plan: Annotated[str, typer.Argument(metavar="PLAN", help="One of `plan list`.")],
        output: Output = None,
    ) -> None:
        """Put an account on another plan; new mailboxes follow it."""
        assigned = asyncio.run(_acts().assign(installation(), account, plan))
        show_one(assigned, f"{assigned['account']} is on {assigned['plan']} now.", output)

    return words


_NONE = "There are none yet: `python main.py account create` makes the first."


def _shown_once(made: dict[str, str]) -> str:
    return f"Account  {made['account']}\nAPI key  {made['key']}\n\nKeep the key now: it is shown this once and kept nowhere."


def _acts() -> Any:
    from gateways.command_line import account_acts  # noqa: PLC0415 - half a second of clients that `--help` need not pay

    return account_acts
