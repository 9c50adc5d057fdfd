"""What commands print: tables and sentences on a terminal, one JSON value on a line for programs.

Standard output carries what was asked for and nothing else; progress and advice go to standard error. Colours appear only
on a terminal, and not where NO_COLOR is set (no-color.org).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

Form = Literal["table", "json"]
Output = Annotated[
    Form | None,
    typer.Option("--output", help="How to print; a table on a terminal, JSON lines elsewhere.", show_default=False),
]
Row = Mapping[str, Any]


def show_rows(rows: Sequence[Row], output: Form | None = None, *, none: str = "There are none.") -> None:
    """Prints a list: a table whose columns are the rows' names, or one JSON object on each line."""
    if _form(output) == "json":
        for row in rows:
            _write(json.dumps(row, ensure_ascii=False))
    elif rows:
        _table(rows)
    else:
        _write(none)


def show_one(row: Row, sentences: str, output: Form | None = None) -> None:
    """Prints one thing: in words for people, or as a JSON object on one line."""
    _write(json.dumps(row, ensure_ascii=False) if _form(output) == "json" else sentences)


def advise(sentence: str) -> None:
    """Tells whoever watches, beside the output."""
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


def _form(output: Form | None) -> Form:
    return output or ("table" if sys.stdout.isatty() else "json")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _table(rows: Sequence[Row]) -> None:
    from rich import box  # noqa: PLC0415 - a tenth of a second that output for programs need not pay
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(_cell(value)) for value in row.values()])
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
