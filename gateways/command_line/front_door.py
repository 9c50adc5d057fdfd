"""The words of the front door that start things, and how a command fails; what they start is handed in by `main`."""

import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from gateways.command_line.failures import Failed
from gateways.command_line.log_words import add_log_words
from gateways.command_line.output import Output, show_rows
from gateways.command_line.role_words import add_role_words
from gateways.command_line.words import add_words

if TYPE_CHECKING:
    from gateways.command_line.installation import Installation


class Settings(Protocol):
    """As much of an installation's settings as is needed here; they are `main`'s to read."""

    @property
    def data(self) -> Path: ...
    @property
    def kafka(self) -> str | None: ...
    @property
    def database_url(self) -> Any: ...
    @property
    def http(self) -> str: ...
    @property
    def smtp(self) -> str: ...
    @property
    def mail_domain(self) -> str: ...
    @property
    def listening(self) -> dict[str, tuple[str, int]]: ...
    @property
    def log_level(self) -> str: ...
    @property
    def topic_prefix(self) -> str: ...
    @property
    def retry_scale(self) -> float: ...
    @property
    def keyset_path(self) -> Path: ...
    @property
    def kms(self) -> str: ...
    @property
    def http_address(self) -> tuple[str, int]: ...
    @property
    def smtp_address(self) -> tuple[str, int]: ...

    def plain(self, name: str) -> Any: ...

    def beside(self, kafka: str, database_url: str) -> Any: ...


class RunsRoles(Protocol):
    async def __call__(
        self, settings: Any, roles: Sequence[str], ready_file: Path | None, *, checked: bool
    ) -> None: ...


class Prepares(Protocol):
    async def __call__(self, settings: Any) -> None: ...


class Reads(Protocol):
    """How settings are read and told; `read` raises Failed."""

    def read(self) -> Settings: ...

    def describe(self, settings: Any) -> list[dict[str, str]]: ...


def front_door(program: Path, *, reads: Reads, run_roles: RunsRoles, prepare: Prepares) -> typer.Typer:
    """Every word of the command line. `program` is the file that `up` starts roles by."""
    said = _Said(reads)
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

        settings = reads.read()
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
        settings = said.connected()
        set_up_logs(settings.log_level)
        if after and provision:
            _run(lambda: prepare(settings))
            pass_on(after, provision)
        _run(lambda: run_roles(settings, roles, ready_file, checked=after is not None))

    add_role_words(cli, role)

    @cli.command()
    def provision() -> None:
        """Create topics and tables, and assert that they are as meant."""
        settings = said.connected()
        _run(lambda: prepare(settings))

    @cli.command()
    def settings(output: Output = None) -> None:
        """Every setting: name, default, present value and meaning."""
        show_rows(reads.describe(said.settings()), output)

    add_words(cli, installation=said.installation, listening=said.listening)
    add_log_words(cli, said.installation)
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


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import uvloop  # noqa: PLC0415 - loaded when used

    uvloop.run(work())


class _Said:
    """What the settings say of where the installation is."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def settings(self) -> Settings:
        """With the servers of a running `up`, where none are named."""
        settings = self._reads.read()
        if not settings.kafka or not settings.database_url:
            from gateways.local_servers import running  # noqa: PLC0415 - loaded when used

            servers = running(settings.data)
            if servers:
                settings = settings.beside(servers.kafka, servers.database_url)
        return settings

    def connected(self) -> Settings:
        """Raises Failed where there are no servers."""
        settings = self.settings()
        if not settings.kafka or not settings.database_url:
            raise Failed(
                f"Nothing runs on {settings.data}: start `python main.py up` first, or name servers with POSTLEDGER_KAFKA "
                f"and POSTLEDGER_DATABASE_URL."
            )
        return settings

    def installation(self) -> "Installation":
        from gateways.command_line.installation import Installation  # noqa: PLC0415 - loaded when used

        settings = self.connected()
        assert settings.kafka
        url, keyset = settings.plain("database_url"), settings.keyset_path
        return Installation(settings.kafka, url, settings.topic_prefix, keyset, settings.kms, settings.retry_scale)

    def listening(self) -> tuple[tuple[str, int], tuple[str, int]]:
        settings = self.settings()
        return settings.http_address, settings.smtp_address
