"""What a read model says of itself, and an event as it sees one."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

Connection = asyncpg.pool.PoolConnectionProxy

#: Rows from which on COPY is worth more than it costs.
COPIED: Final = 50


@dataclass(frozen=True, slots=True)
class Folded:
    """An event as projections see it: where it stands, what caused it, in which trace (W3C), and what it says."""

    topic: str
    partition: int
    position: int
    at: datetime
    kind: str
    subject: str
    key: str
    causation: str
    event: Any
    traceparent: str | None = None


@dataclass(frozen=True)
class Projection:
    """A read model: its permanent name, the topic it folds, its tables, and how events change them.

    `folds` are run in this order for each batch, each with all events of its types. So the order must be that of a life:
    what creates a row first, what changes it next, what ends it last; an id is never used again after its end. What the
    rows are must not depend on where one batch ends and the next begins.
    """

    name: str
    topic: str
    tables: Sequence[str]
    ddl: str
    folds: Mapping[tuple[type, ...], Callable[["Connection[Any]", list[Folded]], Awaitable[None]]]

    async def fold(self, connection: "Connection[Any]", events: list[Folded]) -> None:
        for types, fold in self.folds.items():
            if of_types := [seen for seen in events if isinstance(seen.event, types)]:
                await fold(connection, of_types)

    @property
    def statements(self) -> list[str]:
        """The DDL, one statement at a time."""
        return [statement for statement in self.ddl.split(";\n") if statement.strip()]


async def insert(
    connection: "Connection[Any]", table: str, columns_: Mapping[str, str], rows: list[tuple[Any, ...]]
) -> None:
    """Adds rows to a table whose columns are named with their types; many of them by COPY."""
    if len(rows) >= COPIED:
        await connection.copy_records_to_table(table, records=rows, columns=list(columns_))
    elif rows:
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns_.values(), 1))
        await connection.execute(
            f"insert into {table} ({', '.join(columns_)}) select * from unnest({arrays})",  # noqa: S608 - names of our own
            *columns(rows),
        )


def columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows turned into the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]


def last_of_each(events: list[Folded], name: Callable[[Any], str]) -> list[Folded]:
    """For each id the last event that names it: an UPDATE must not meet a row twice."""
    return list({name(seen.event): seen for seen in events}.values())
