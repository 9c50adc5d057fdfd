"""The words of the front door that start things, and how a command fails; what they start is handed in by `main`."""

import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from gateways.command_line.failures import USAGE, Failed
from gateways.command_line.log_words import add_log_words
from gateways.command_line.output import Output, show_rows
from gateways.command_line.role_words import add_role_words
from gateways.command_line.words import add_words

if TYPE_CHECKING:
    from gateways.command_line.installation import Installation
    from gateways.settings import Settings


class RunsRoles(Protocol):
    async def __call__(
        self, settings: "Settings", roles: Sequence[str], ready_file: Path | None, *, checked: bool
    ) -> None: ...


class Prepares(Protocol):
    async def __call__(self, settings: "Settings") -> None: ...


def front_door(program: Path, *, run_roles: RunsRoles, prepare: Prepares) -> typer.Typer:
    """Every word of the command line. `program` is the file that `up` starts roles by."""
    cli = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="One e-mail backend whose every step is an event in a log. Begin with `up`, then look at it with `demo`.",
    )

    @cli.command()
    def up() -> None:
        """Everything on this machine: Kafka, Postgres and all roles."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: sys.exit(0))  # nothing has begun yet; the supervisor listens from then on
        from gateways.command_line.up import said_when_ready, supervisor_of  # noqa: PLC0415 - loaded when used

        settings = _read()
        supervisor = supervisor_of(
            settings.data,
            program=program,
            kafka=settings.kafka,
            database_url=settings.plain("database_url"),
            listening=settings.listening,
        )
        ready = said_when_ready(settings.http, settings.smtp, mail_domain=settings.mail_domain, data=settings.data)
        _run(lambda: supervisor.run(ready))

    def role(
        *roles: str, ready_file: Path | None = None, after: Path | None = None, provision: Path | None = None
    ) -> None:
        from gateways.logs import set_up_logs  # noqa: PLC0415 - loaded when used
        from gateways.supervised import pass_on, wait_for_servers  # noqa: PLC0415 - loaded when used

        if after:
            wait_for_servers(after, *roles, *(["provision"] if provision else []))
        settings = _connected()
        set_up_logs(settings.log_level)
        if after and provision:
            _run(lambda: prepare(settings))
            pass_on(after, provision)
        _run(lambda: run_roles(settings, roles, ready_file, checked=after is not None))

    add_role_words(cli, role)

    @cli.command()
    def provision() -> None:
        """Create topics and tables, and assert that they are as meant."""
        settings = _connected()
        _run(lambda: prepare(settings))

    @cli.command()
    def settings(output: Output = None) -> None:
        """Every setting: name, default, present value and meaning."""
        from gateways.settings import describe  # noqa: PLC0415 - loaded when used

        show_rows(describe(_settings()), output)

    add_words(cli, installation=_installation, listening=_listening)
    add_log_words(cli, _installation)
    return cli


def run_command(cli: typer.Typer) -> None:
    """Runs a command; what can be expected to fail fails in one sentence and an exit status."""
    try:
        cli()
    except Exception as error:
        from gateways.command_line.expected import explained  # noqa: PLC0415 - loaded when used

        failed = explained(error)
        if failed is None:
            raise
        print(failed, file=sys.stderr)
        sys.exit(failed.code)


def _read() -> "Settings":
    from gateways.settings import SettingsError, read_settings  # noqa: PLC0415 - loaded when used

    try:
        return read_settings()
    except SettingsError as error:
        raise Failed(str(error), code=USAGE) from error


def _settings() -> "Settings":
    settings = _read()
    if not settings.kafka or not settings.database_url:
        from gateways.local_servers import running  # noqa: PLC0415 - loaded when used

        servers = running(settings.data)
        if servers:
            return settings.beside(servers.kafka, servers.database_url)
    return settings


def _connected() -> "Settings":
    settings = _settings()
    if not settings.kafka or not settings.database_url:
        raise Failed(
            f"Nothing runs on {settings.data}: start `python main.py up` first, or name servers with POSTLEDGER_KAFKA and "
            f"POSTLEDGER_DATABASE_URL."
        )
    return settings


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import uvloop  # noqa: PLC0415 - loaded when used

    uvloop.run(work())


def _installation() -> "Installation":
    from gateways.command_line.installation import Installation  # noqa: PLC0415 - loaded when used

    settings = _connected()
    assert settings.kafka
    url, keyset = settings.plain("database_url"), settings.keyset_path
    return Installation(settings.kafka, url, settings.topic_prefix, keyset, settings.kms)


def _listening() -> tuple[tuple[str, int], tuple[str, int]]:
    settings = _settings()
    return settings.http_address, settings.smtp_address
