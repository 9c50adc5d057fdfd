"""Whether two tables hold the same: every row, both ways, in Postgres itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from projections.projection import Connection

#: Differing rows that are named; of the others it is said how many there are.
NAMED: Final = 20
#: Characters of a value that are shown: sealed values are long and say nothing.
SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not what the log says: its primary key, and by column what is there and what the log says.

    Without columns the whole row is too much (`extra`) or missing.
    """

    table: str
    key: Mapping[str, Any]
    columns: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    extra: bool = False

    def __str__(self) -> str:
        row = f"{self.table} " + ", ".join(f"{name}={_shown(value)}" for name, value in self.key.items())
        if not self.columns:
            return f"{row}: is there, but not by the log" if self.extra else f"{row}: is missing"
        return f"{row}: " + "; ".join(
            f"{name} is {_shown(live)}, by the log {_shown(rebuilt)}" for name, (live, rebuilt) in self.columns.items()
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """A table's columns with their types, in order, and which of them are its primary key."""

    columns: Mapping[str, str]
    key: Sequence[str]


async def shape(connection: "Connection[Any]", schema: str, table: str) -> Shape | None:
    """None where there is no such table."""
    rows = await connection.fetch(
        "select a.attname, format_type(a.atttypid, a.atttypmod), coalesce(array_position(i.indkey::int[], a.attnum), -1) "
        "from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary "
        "where a.attrelid = to_regclass(format('%I.%I', $1::text, $2::text)) and a.attnum > 0 and not a.attisdropped "
        "order by a.attnum",
        schema,
        table,
    )
    if not rows:
        return None
    key = sorted((place, name) for name, _, place in rows if place >= 0)
    return Shape({name: kind for name, kind, _ in rows}, [name for _, name in key])


async def compare(
    connection: "Connection[Any]", table: str, *, live: str, rebuilt: str, limit: int = NAMED
) -> tuple[int, list[Difference]]:
    """How many rows of a table differ between two schemas, and the first of them by primary key."""
    there, meant = await shape(connection, live, table), await shape(connection, rebuilt, table)
    assert there is not None
    assert meant is not None
    if there.columns != meant.columns:
        changed = {name for name, _ in set(there.columns.items()) ^ set(meant.columns.items())}
        types = {name: (there.columns.get(name), meant.columns.get(name)) for name in sorted(changed)}
        return 1, [Difference(table, {"columns": "of another shape"}, types or {"order": ("another", "as declared")})]
    rows = await connection.fetch(_differing(table, meant, live, rebuilt), limit)
    differences = [_difference(table, meant.key, row["live"], row["rebuilt"]) for row in rows]
    return (rows[0]["count"] if rows else 0), differences


def _differing(table: str, meant: Shape, live: str, rebuilt: str) -> str:
    """Keys first: only rows that are named are turned into JSON."""
    name, key = _quoted(table), ", ".join(map(_quoted, meant.key))
    left, right = (f"row({', '.join(f'{side}.{_quoted(column)}' for column in meant.columns)})" for side in ("l", "r"))
    return (
        f"with differing as materialized (select {key} from {_quoted(live)}.{name} l "  # noqa: S608 - quoted names of our own
        f"full join {_quoted(rebuilt)}.{name} r using ({key}) where {left} is distinct from {right}) "
        f"select (select count(*) from differing) as count, to_jsonb(l) as live, to_jsonb(r) as rebuilt "
        f"from (select * from differing order by {key} limit $1) d left join {_quoted(live)}.{name} l using ({key}) "
        f"left join {_quoted(rebuilt)}.{name} r using ({key}) order by {key}"
    )


def _difference(table: str, key: Sequence[str], live: str | None, rebuilt: str | None) -> Difference:
    there, meant = json.loads(live or "{}"), json.loads(rebuilt or "{}")
    columns = (
        {name: (there[name], meant[name]) for name in there if there[name] != meant[name]} if live and rebuilt else {}
    )
    return Difference(table, {name: (there or meant)[name] for name in key}, columns, extra=rebuilt is None)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}… ({len(text)} characters)"
