"""The words that go back over the log: `replay`, `skip-event` and `reset-input`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.command_line.failures import FAILED, NOT_FOUND, USAGE, Failed
from gateways.command_line.output import Form, Output, advise, show_one
from schemas.envelope import Source

if TYPE_CHECKING:
    from gateways.command_line.installation import Installation

#: Nothing was rebuilt: apart from 1, which says that rows differed.
NOT_REBUILT = 6


def add_log_words(cli: typer.Typer, installation: Callable[[], "Installation"]) -> None:
    """Adds `replay`, `skip-event` and `reset-input`; `installation` finds the servers of the running installation."""

    @cli.command()
    def replay(
        names: Annotated[list[str] | None, typer.Argument(help="Read models, by name.", show_default=False)] = None,
        every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only; change nothing.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
        output: Output = None,
    ) -> None:
        """Rebuild tables from the log, and name every wrong row.

        The rebuilt tables are put in place of the live ones, so that wrong rows are repaired.

        Exit status 0: live and rebuilt tables were equal; 1: rows differed, or tables were missing; 6: nothing was rebuilt.
        """
        import asyncio  # noqa: PLC0415 - loaded when used, as all of them are

        from gateways.command_line.replay import confirmed  # noqa: PLC0415 - as above

        chosen = _chosen(names or [], every)
        with _telling_failure_from_difference():
            servers = installation()
            if not confirmed(chosen, dry_run=dry_run, yes=yes):
                raise Failed("Nothing was changed.")
            status = asyncio.run(_replay(servers, chosen, dry_run=dry_run, output=output))
        raise typer.Exit(status)

    @cli.command("skip-event")
    def skip_event(
        topic: Annotated[str, typer.Argument(help="A topic of events, such as mailbox.events.")],
        partition: Annotated[int, typer.Argument(min=0)],
        position: Annotated[int, typer.Argument(min=0, help="The event's offset.")],
        reason: Annotated[str, typer.Option("--reason", help="Why, in a sentence; it stays in the log.")],
        output: Output = None,
    ) -> None:
        """Let projections pass over an event they can't apply.

        It is recorded in the log: every rebuild passes over it as well.
        """
        import asyncio  # noqa: PLC0415 - as above

        if not reason.strip():
            raise Failed("Say why with --reason: whoever rebuilds these tables in a year will ask.", code=USAGE)
        asyncio.run(_skip(installation(), Source(topic, partition, position), reason, output))

    @cli.command("reset-input")
    def reset_input(
        topic: Annotated[str, typer.Argument(help="A topic that a decider reads, such as mailbox.commands.")],
        reason: Annotated[str, typer.Option("--reason", help="Why, in a sentence; it stays in the log.")],
        partition: Annotated[int, typer.Option("--partition", min=0)] = 0,
        output: Output = None,
    ) -> None:
        """Go on without records that were never decided.

        A decider stops where records are missing from its input; this says in the log that it shall go on. It does nothing
        where none is missing.
        """
        import asyncio  # noqa: PLC0415 - as above

        asyncio.run(_reset(installation(), topic, partition, reason, output))


@contextmanager
def _telling_failure_from_difference() -> Iterator[None]:
    """A replay that could not be done is no replay that found something: what would be status 1 is 6."""
    try:
        yield
    except typer.Abort as abort:
        raise Failed("Nothing was changed.", code=NOT_REBUILT) from abort
    except Exception as error:
        from gateways.command_line.expected import explained  # noqa: PLC0415 - as above

        failed = explained(error)
        if failed is None or failed.code != FAILED:
            raise
        raise Failed(str(failed), code=NOT_REBUILT) from error


def _chosen(names: Sequence[str], every: bool) -> list[str]:
    from projections.catalogue import PROJECTIONS  # noqa: PLC0415 - as above

    known = [projection.name for projection in PROJECTIONS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failed(f"There is no read model {unknown[0]}: {', '.join(known)}.", code=NOT_FOUND)
    if every == bool(names):
        raise Failed(f"Name read models, or --all: {', '.join(known)}.", code=USAGE)
    return known if every else [name for name in known if name in names]


async def _replay(installation: "Installation", names: Sequence[str], *, dry_run: bool, output: Form | None) -> int:
    from gateways.command_line.installation import tables_of  # noqa: PLC0415 - as above
    from gateways.command_line.replay import replay  # noqa: PLC0415 - as above
    from gateways.log.event_log import EventLog  # noqa: PLC0415 - as above
    from gateways.log.provision import open_log  # noqa: PLC0415 - as above
    from projections.catalogue import PROJECTIONS  # noqa: PLC0415 - as above
    from projections.replay import CannotReplay, Rebuild  # noqa: PLC0415 - as above
    from schemas import events  # noqa: PLC0415 - as above

    log = EventLog(installation.kafka, prefix=installation.topic_prefix)
    try:
        async with tables_of(installation) as pool:
            await open_log(log, pool)
        rebuilds = [
            Rebuild(projection, events.OF_TOPIC[projection.topic], log, installation.database_url)
            for projection in PROJECTIONS
            if projection.name in names
        ]
        return await replay(rebuilds, dry_run=dry_run, output=output)
    except CannotReplay as error:
        raise Failed(str(error)) from error
    finally:
        await log.close()


async def _skip(installation: "Installation", event: Source, reason: str, output: Form | None) -> None:
    from gateways.command_line.skip_event import skip_event  # noqa: PLC0415 - as above
    from gateways.log.event_log import EventLog, LogUnavailable  # noqa: PLC0415 - as above

    log = EventLog(installation.kafka, prefix=installation.topic_prefix)
    try:
        said = await skip_event(log, event.topic, event.partition, event.offset, reason)
    except LogUnavailable as error:
        raise Failed(f"The log does not answer: {error}", code=FAILED) from error
    finally:
        await log.close()
    place = f"{event.topic}/{event.partition}"
    show_one(
        {"skipped": str(event), "said_at": f"{place}/{said}", "reason": reason},
        f"{place}/{said} says that {event.offset} is passed over: a stopped partition goes on now.",
        output,
    )
    advise("Tables that already hold what it says lose it when they are rebuilt: python main.py replay --all")


async def _reset(installation: "Installation", topic: str, partition: int, reason: str, output: Form | None) -> None:
    from gateways.command_line.installation import tables_of  # noqa: PLC0415 - as above
    from gateways.command_line.reset_input import reset_input  # noqa: PLC0415 - as above
    from gateways.log.event_log import EventLog, LogUnavailable  # noqa: PLC0415 - as above

    log = EventLog(installation.kafka, prefix=installation.topic_prefix)
    try:
        async with tables_of(installation) as pool:
            said = await reset_input(log, pool, topic, partition, reason)
    except LogUnavailable as error:
        raise Failed(f"The log does not answer: {error}", code=FAILED) from error
    finally:
        await log.close()
    show_one(
        {"input": f"{topic}/{partition}", "from": said.from_offset, "to": said.to_offset, "reason": reason},
        f"{topic}/{partition} goes on at {said.to_offset}: {said.to_offset - said.from_offset} records from "
        f"{said.from_offset} on are gone and passed over.",
        output,
    )
    advise("Start the role `work` again where it has stopped.")
