"""Changes made in the order of the log, in as few statements as that allows: things go from state to state and back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from projections.projection import Connection

#: What a change is about, its statement, and the row that fills it in.
Change = tuple[str, str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of one statement, and the things they are about."""

    statement: str
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    about: set[str] = field(default_factory=set)


async def change_in_order(connection: "Connection[Any]", changes: Iterable[Change]) -> None:
    """Rows of the same statement together, as far as no thing's order is changed by it."""
    runs: list[Run] = []
    for name, statement, row in changes:
        place = next((run for run in reversed(runs) if run.statement == statement or name in run.about), None)
        if place is None or place.statement != statement:
            place = Run(statement)
            runs.append(place)
        place.rows.append(row)
        place.about.add(name)
    for run in runs:
        await connection.executemany(run.statement, run.rows)
