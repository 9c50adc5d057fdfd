"""`main.py replay`: read models rebuilt from the log, what differed told row by row, and repaired.

The answer goes to standard output, progress to standard error. Exit status: 0 where live and rebuilt tables were equal,
1 where they differed, or were not there (and, without `--dry-run`, no longer do).
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import typer

from gateways.command_line.failures import USAGE, Failed
from gateways.command_line.output import Form, show_one
from gateways.command_line.progress import Bar


class Outcome(Protocol):
    """What became of one rebuild; a difference says itself what it is."""

    @property
    def positions(self) -> Mapping[int, int]: ...

    @property
    def from_nothing(self) -> bool: ...

    @property
    def missing(self) -> bool: ...

    @property
    def count(self) -> int: ...

    @property
    def differences(self) -> Sequence[object]: ...

    @property
    def switched(self) -> bool: ...


class Rebuilds(Protocol):
    """One read model, as `projections/replay.py` rebuilds it."""

    name: str

    async def run(self, *, switch: bool, progress: Callable[[int, int], None]) -> Outcome: ...


def confirmed(names: Sequence[str], *, dry_run: bool, yes: bool) -> bool:
    """Whether the tables may be exchanged; asks on a terminal, unless told already. Raises Failed where nobody is there."""
    if not (dry_run or yes) and not sys.stdin.isatty():
        raise Failed("This replaces live tables: say --yes, or --dry-run to compare only.", code=USAGE)
    return dry_run or yes or typer.confirm(f"Replace the live tables of {', '.join(names)} by rebuilt ones?", err=True)


async def replay(rebuilds: Sequence[Rebuilds], *, dry_run: bool, output: Form | None = None) -> int:
    """Rebuilds one after the other and prints what became of each; the exit status. Raises what a rebuild raises."""
    different = 0
    for rebuild in rebuilds:
        began = time.monotonic()
        with Bar(rebuild.name) as bar:
            outcome = await rebuild.run(switch=not dry_run, progress=bar.at)
        _say(rebuild.name, outcome, time.monotonic() - began, output)
        different += outcome.count or (dry_run and outcome.missing)
    return 1 if different else 0


def _say(name: str, outcome: Outcome, seconds: float, output: Form | None) -> None:
    events, differences = sum(outcome.positions.values()), [str(difference) for difference in outcome.differences]
    row = {
        "read_model": name,
        "records": events,
        "seconds": round(seconds, 3),
        "differing_rows": outcome.count,
        "from_nothing": outcome.from_nothing,
        "in_place": outcome.switched,
        "differences": differences,
    }
    more = [f"… and {outcome.count - len(differences)} more"] if outcome.count > len(differences) else []
    result = "made from nothing" if outcome.from_nothing else _compared(outcome.count)
    done = "the rebuilt tables are in place" if outcome.switched else "nothing was changed"
    pace = f"{events} records in {seconds:.1f} s ({events / max(seconds, 0.001):.0f}/s)"
    show_one(row, "\n".join([*differences, *more, f"{name}: {pace}, {result}; {done}."]), output)


def _compared(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''} differed" if count else "equal to the live tables"
