"""The pages people read, and the blocks of commands and code in them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NAMED_TEST = re.compile(r"\b(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `place` is where a reader finds it."""

    place: str
    language: str
    text: str


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    text = read(page)
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(f"{named(page)}:{line}", found["language"], found["text"])


def part(page: Path, name: str) -> str:
    """What stands between the page's marks of this name. Raises ValueError."""
    _, found, after = read(page).partition(f"<!-- {name} -->\n")
    inside, closed, _ = after.partition(f"<!-- /{name} -->")
    if not found or not closed:
        raise ValueError(f"{named(page)} has no part {name}")
    return inside


def names_of_tests(file: Path) -> set[str]:
    """The names of the tests that a file has."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)}


def missing_tests(text: str) -> list[str]:
    """The tests that a text names and that do not exist."""
    there = {
        file: names_of_tests(ROOT / file) if (ROOT / file).exists() else set() for file, _ in NAMED_TEST.findall(text)
    }
    return [f"{file}::{name}" for file, name in NAMED_TEST.findall(text) if name not in there[file]]
