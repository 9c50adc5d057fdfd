"""The house rules that no type checker knows: rooms, directions, sizes, names, and what never goes into the repository."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["domain", "schemas", "handlers", "projections", "gateways"]
FOLDERS = {*ROOMS, "tests", "docs"}

LONGEST_FILE = 400
# The front door is the one place of all the wiring: a second file of it would be a second place.
LONGEST_FRONT_DOOR = 500
LONGEST_FUNCTION = 70
DRAWERS = {"utils", "util", "common", "base", "helpers", "misc"}

#: A machine's own folders, where no name or address comes before them. (Classes keep the pattern from finding itself.)
MACHINE_PATH = re.compile(r"(?<![\w.\-/])/(?:[w]ork|[r]oot)/")
#: Where packages come from, said by an option or by the form of an address.
REGISTRY = re.compile(
    r"(?:[i]ndex-url|[f]ind-links|[t]rusted-host)\b[\s=\"']+(?:https?:|/|[\w-]+\.[\w.]+)|/[a]pi/pypi/|://\S+/[s]imple\b"
)
#: Variables by which a machine is told of mirrors and proxies.
MIRRORS = re.compile(r"INDEX|PROXY|REGISTRY|MIRROR|FIND_LINKS", re.IGNORECASE)
LOOPBACK = {None, "localhost", "127.0.0.1", "::1"}
EXCUSE = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:[,\s]+[A-Z]+\d+)*)?|type:\s*ignore(?:\[[\w\-, ]+\])?)(?P<reason>.*)"
)


@cache
def repository_files() -> list[Path]:
    """Every file that is in the repository or about to be."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def text_files() -> list[tuple[Path, str]]:
    found = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found.append((path, content.decode("utf-8", "replace")))
    return found


def python_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py"]


def named(path: Path, line: int | None = None) -> str:
    return f"{path.relative_to(ROOT)}{f':{line}' if line else ''}"


# ── rooms and directions ──────────────────────────────────────────────────────────────────────────────────────────────


def test_imports_point_inward() -> None:
    """The contracts of pyproject.toml hold. In a process of its own: the linter switches off every logger there is."""
    program = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )
    linted = subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_contracts_cover_every_room() -> None:
    linted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert sorted(linted) == sorted(ROOMS)


def test_the_root_has_exactly_the_agreed_folders() -> None:
    tracked = {path.relative_to(ROOT).parts[0] for path in repository_files() if path.parent != ROOT}
    assert {name for name in tracked if not name.startswith(".")} <= FOLDERS
    assert FOLDERS - {"docs"} <= tracked


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_imported_from_this_repository(room: str) -> None:
    """An installed package of the same name must not stand in for ours."""
    assert Path(importlib.import_module(room).__file__ or "").is_relative_to(ROOT / room)


def test_the_domain_imports_the_standard_library_and_itself() -> None:
    allowed = {"domain", *sys.stdlib_module_names}
    foreign = [
        f"{named(path, node.lineno)} imports {name}"
        for path in python_files()
        if path.is_relative_to(ROOT / "domain")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
        if name.split(".")[0] not in allowed
    ]
    assert not foreign, "\n".join(foreign)


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=module, level=0):
            return [module or ""]
        case _:
            return []


#: Asking for the time, for randomness or for anything outside, by the names that code would use.
IMPURE = {"now", "utcnow", "today", "time_ns", "monotonic", "urandom", "getenv", "open", "print", "input"}
IMPURE_MODULES = {"random", "secrets", "uuid", "os", "socket", "time", "asyncio", "subprocess", "threading", "logging"}


def test_the_domain_asks_nobody_for_the_time_or_for_luck() -> None:
    found = []
    for path in python_files():
        if path.is_relative_to(ROOT / "domain"):
            for node in ast.walk(ast.parse(path.read_text())):
                found += [f"{named(path)} imports {name}" for name in imported(node) if name in IMPURE_MODULES]
                if isinstance(node, ast.Call) and called(node) in IMPURE:
                    found.append(f"{named(path, node.lineno)} calls {called(node)}")
    assert not found, "\n".join(found)


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


# ── sizes and names ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_file_is_too_long_to_read_in_one_go() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in python_files()}
    assert lengths.pop("main.py") <= LONGEST_FRONT_DOOR
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_longer_than_a_page() -> None:
    long = [
        f"{named(path, node.lineno)} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_nothing_is_kept_in_a_drawer() -> None:
    """A file is named for what it is for."""
    assert [named(path) for path in python_files() if {path.stem, path.parent.name} & DRAWERS] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        named(path)
        for path in python_files()
        if path.relative_to(ROOT).parts[0] in ROOMS
        and not path.is_relative_to(ROOT / "projections" / "migrations")
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, "\n".join(silent)


# ── what never goes into the repository ───────────────────────────────────────────────────────────────────────────────


def test_every_exception_from_a_rule_gives_its_reason() -> None:
    bare = [
        named(path, number)
        for path in python_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (excuse := EXCUSE.search(line)) and len(re.sub(r"[^a-z]", "", excuse["reason"].lower())) < 4
    ]
    assert not bare, "\n".join(bare)


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    """Nor where the repository or the home of whoever runs the tests is."""
    here = [f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 2]
    found = [
        named(path, number)
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line) or any(folder in line for folder in here)
    ]
    assert not found, "\n".join(found)


def test_no_file_names_where_packages_come_from() -> None:
    """Whoever installs says so in the environment; a lock file must fit every mirror."""
    ours = {urlsplit(value).hostname for name, value in os.environ.items() if MIRRORS.search(name)} - LOOPBACK
    found = [
        named(path, number)
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if REGISTRY.search(line) or any(host and host in line for host in ours)
    ]
    assert not found, "\n".join(found)


#: Lines that must be caught, torn where the searches would find them here.
PLANTED = [
    (MACHINE_PATH, "cd /~work/main"),
    (MACHINE_PATH, '"/~root/.cache"'),
    (REGISTRY, "--in~dex-url=https://packages.example/"),
    (REGISTRY, "tru~sted-host = packages.example"),
    (REGISTRY, "https://packages.example/sim~ple/"),
    (EXCUSE, "x = 1  # no~qa"),
    (EXCUSE, "x = 1  # no~qa: S101"),
    (EXCUSE, "y = 2  # type: ig~nore[arg-type]"),
]
HARMLESS = [
    (MACHINE_PATH, "tests/work/root/file and https://example.org/work/1"),
    (REGISTRY, "uv pip compile --no-emit-index-url --no-emit-find-links"),
]


@pytest.mark.parametrize(("search", "line"), PLANTED)
def test_the_searches_find_what_they_look_for(search: re.Pattern[str], line: str) -> None:
    found = search.search(line.replace("~", ""))
    assert found
    assert search is not EXCUSE or not found["reason"].strip()


@pytest.mark.parametrize(("search", "line"), HARMLESS)
def test_the_searches_leave_the_harmless_alone(search: re.Pattern[str], line: str) -> None:
    assert not search.search(line)
