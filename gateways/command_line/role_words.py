"""The words that run roles: `http`, `smtp`, `work`, `project`, and several of them in one process."""

from pathlib import Path
from typing import Annotated, Protocol

import typer


class RunsRoles(Protocol):
    def __call__(
        self, *roles: str, ready_file: Path | None = None, after: Path | None = None, provision: Path | None = None
    ) -> None: ...


def add_role_words(cli: typer.Typer, run: RunsRoles) -> None:
    """Adds a word for each role; `run` runs roles until it is told to end."""

    @cli.command()
    def http() -> None:
        """The role that answers HTTP."""
        run("http")

    @cli.command()
    def smtp() -> None:
        """The role that takes mail in by SMTP."""
        run("smtp")

    @cli.command()
    def work() -> None:
        """The role that decides and acts."""
        run("work")

    @cli.command()
    def project() -> None:
        """The role that folds events into tables."""
        run("project")

    @cli.command(hidden=True)
    def roles(
        names: list[str],
        ready_file: Annotated[Path | None, typer.Option()] = None,
        after: Annotated[Path | None, typer.Option()] = None,
        provision: Annotated[Path | None, typer.Option()] = None,
    ) -> None:
        """Several roles in one process, as `up` starts them."""
        run(*names, ready_file=ready_file, after=after, provision=provision)
