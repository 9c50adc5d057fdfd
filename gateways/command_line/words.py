"""The words that act on an installation from beside it. Each loads what it needs only when it is used."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateways.command_line.accounts import account_words
from gateways.command_line.output import Form, Output
from gateways.command_line.plans import plan_words
from gateways.command_line.redrive_words import add_redrive

Listening = tuple[tuple[str, int], tuple[str, int]]


def add_words(cli: typer.Typer, *, installation: Callable[[], Any], listening: Callable[[], Listening]) -> None:
    """Adds `account`, `plan`, `redrive`, `migrate`, `rotate-keys`, `schemas` and `demo`.

    `installation` finds the servers of the running installation, `listening` where its HTTP and SMTP listen.
    """
    cli.add_typer(account_words(installation), name="account")
    cli.add_typer(plan_words(installation), name="plan")
    add_redrive(cli, installation)

    @cli.command()
    def migrate() -> None:
        """Bring the tables up to date, as `up` and `provision` do, too."""
        import asyncio  # noqa: PLC0415 - loaded when used, as all of them are

        from projections.migrate import migrate as bring_up_to_date  # noqa: PLC0415 - as above

        asyncio.run(bring_up_to_date(installation().database_url))

    @cli.command("rotate-keys")
    def rotate_keys(
        forget: Annotated[
            bool, typer.Option("--forget", help="Destroy earlier keys of the keyset file that nothing needs any more.")
        ] = False,
        output: Output = None,
    ) -> None:
        """Wrap every data key anew, by a new key, while all goes on."""
        import asyncio  # noqa: PLC0415 - as above

        from gateways.command_line.rotate_keys import rotate_keys_of  # noqa: PLC0415 - as above

        asyncio.run(rotate_keys_of(installation(), forget=forget, output=output))

    @cli.command()
    def demo(
        output: Annotated[
            Form, typer.Option("--output", help="How to tell it: in sentences, or as JSON lines.")
        ] = "table",
    ) -> None:
        """A tour through what runs, from a new inbox to a full one."""
        import asyncio  # noqa: PLC0415 - loaded when used, as all of them are

        from gateways.command_line.demo import take_the_tour  # noqa: PLC0415 - as above

        asyncio.run(take_the_tour(*listening(), output=output))

    @cli.command()
    def schemas(
        folder: Annotated[Path, typer.Argument(help="Where they are kept.")] = Path("docs/schemas"),
        check: Annotated[bool, typer.Option("--check", help="Compare, and fail where they differ.")] = False,
    ) -> None:
        """Write the documents for those who consume the log."""
        from gateways.command_line.schemas import check_documents, write_documents  # noqa: PLC0415 - as above

        (check_documents if check else write_documents)(folder)
