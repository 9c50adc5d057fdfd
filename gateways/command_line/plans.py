"""`plan`: how many inboxes and messages may live, and for how long."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import typer

from gateways.command_line.failures import USAGE, Failed
from gateways.command_line.output import Output, show_one, show_rows


def plan_words(installation: Callable[[], Any]) -> typer.Typer:
    """The words below `plan`, for the installation that is found when one of them is used."""
    words = typer.Typer(no_args_is_help=True, help="Plans: how much may live, and for how long.")

    @words.command("list")
    def list_(output: Output = None) -> None:
        """Every plan and its limits; times in minutes."""
        show_rows(asyncio.run(_acts().plans(installation())), output)

    @words.command("set")
    def set_(  # noqa: PLR0917 - typer tells options from arguments by their annotations
        name: Annotated[str, typer.Argument(metavar="PLAN", help="The plan to change, or to make.")],
        messages: Annotated[int | None, typer.Option(help="Messages that may live in one inbox.")] = None,
        mailboxes: Annotated[int | None, typer.Option(help="Inboxes that may live at once.")] = None,
        default_ttl: Annotated[int | None, typer.Option(help="Minutes an inbox lives if none are asked for.")] = None,
        longest_ttl: Annotated[int | None, typer.Option(help="Minutes an inbox lives at most.")] = None,
        output: Output = None,
    ) -> None:
        """Change the given limits and keep the others, for new inboxes."""
        limits = {
            "live_messages": messages,
            "live_mailboxes": mailboxes,
            "default_ttl_minutes": default_ttl,
            "longest_ttl_minutes": longest_ttl,
        }
        given = {limit: value for limit, value in limits.items() if value is not None}
        if not given:
            raise Failed(f"Say what to change, such as: python main.py plan set {name} --messages 100", code=USAGE)
        row = asyncio.run(_acts().define_plan(installation(), name, given))
        show_one(row, _sentence(row), output)

    return words


def _sentence(row: dict[str, Any]) -> str:
    return (
        f"{row['plan']}: {row['live_mailboxes']} inboxes, {row['live_messages']} messages in each, "
        f"{row['default_ttl_minutes']} minutes if none are asked for, {row['longest_ttl_minutes']} at most."
    )


def _acts() -> Any:
    from gateways.command_line import account_acts  # noqa: PLC0415 - half a second of clients that `--help` need not pay

    return account_acts
