"""The word `redrive`, as it is typed."""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.command_line.failures import NOT_FOUND, USAGE, Failed
from gateways.command_line.output import Output

if TYPE_CHECKING:
    from gateways.command_line.installation import Installation
    from gateways.command_line.redrive import Chosen


class Status(StrEnum):
    """What can be tried again."""

    DEAD_LETTERED = "dead_lettered"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class At(StrEnum):
    """Where a mail was to go out."""

    GMAIL = "gmail"
    OUTLOOK = "outlook"
    SMTP = "smtp"


def add_redrive(cli: typer.Typer, installation: Callable[[], "Installation"]) -> None:
    """Adds `redrive`; `installation` finds the servers of the running installation."""

    @cli.command()
    def redrive(  # noqa: PLR0917 - the framework reads them by name
        sends: Annotated[list[str] | None, typer.Argument(help="Mails, snd_….", show_default=False)] = None,
        every: Annotated[bool, typer.Option("--all", help="All of one status.")] = False,
        status: Annotated[Status | None, typer.Option(help="With --all; dead_lettered if not said.")] = None,
        code: Annotated[str | None, typer.Option(help="With --all: only those with this code.")] = None,
        provider: Annotated[At | None, typer.Option(help="With --all: only those of this provider.")] = None,
        since: Annotated[str | None, typer.Option(help="With --all: ended since; 2h, 3d or a time.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Show them only; change nothing.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
        output: Output = None,
    ) -> None:
        """Have mails tried again that did not go out.

        What is uncertain may have gone out: it is taken only where it is named, or by --status uncertain.

        Exit status 0: all are tried again; 1: some were refused; 3: one is not there; 4: some were not decided in time.
        """
        import asyncio  # noqa: PLC0415 - loaded when used, as all of them are

        chosen = _chosen(sends or [], every=every, status=status, code=code, provider=provider, since=since)
        from gateways.command_line.redrive import redrive as redrive_of  # noqa: PLC0415 - as above

        raise typer.Exit(asyncio.run(redrive_of(installation(), chosen, dry_run=dry_run, yes=yes, output=output)))


def _chosen(
    names: list[str], *, every: bool, status: Status | None, code: str | None, provider: At | None, since: str | None
) -> "Chosen":
    """Raises Failed where that makes no sense."""
    if every == bool(names):
        raise Failed("Name mails by their ids, snd_…, or say --all.", code=USAGE)
    if names and any((status, code, provider, since)):
        raise Failed("--status, --code, --provider and --since narrow --all: leave them out to name mails.", code=USAGE)
    if strange := [name for name in names if not name.startswith("snd_")]:
        raise Failed(f"{strange[0]} is no id of a mail, snd_…: GET /v1/messages lists them.", code=NOT_FOUND)
    from datetime import UTC, datetime  # noqa: PLC0415 - loaded when used

    from gateways.command_line.redrive import Chosen, moment_of  # noqa: PLC0415 - as above

    at = moment_of(since, datetime.now(UTC)) if since is not None else None
    return Chosen(
        tuple(dict.fromkeys(names)),
        (status or Status.DEAD_LETTERED).value,
        code,
        provider.value if provider else None,
        at,
    )
