"""What the pages tell people to type is typed here, against a running house; what they say is there, is there."""

import os
import re
import shutil
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import main
from gateways.http import problems
from gateways.settings import Settings
from tests.support.papers import PAGES, ROOT, Block, blocks, missing_tests, named, names_of_tests, part, read
from tests.support.up import Up, installed_at, started

#: Languages of blocks that show something and tell nobody to do it.
SHOWN = {"json", "text"}
#: What can't be run in a test, by how the block begins, and why.
NOT_RUN = {
    "docker compose up --detach": "needs a container engine; tests/gateways/test_compose.py judges what it would run",
    "$ make test": "this is it",
}
#: Blocks that a test of their own runs, by how they begin.
RUN_ELSEWHERE = {
    '"""Prints': "tests/schemas/test_reader_programs.py",
    '"""Copies': "tests/schemas/test_reader_programs.py",
    "import json\nimport urllib.request": "tests/gateways/test_live_docs.py",
    "from datetime import UTC, datetime\n\nfrom standardwebhooks": "tests/gateways/webhooks/test_signing.py",
}
#: Between two blocks a person looks at what the stream tells. The script looks whether a mail that was sent is listed.
ONE_LOOKS = """
if [ -n "${inbox:-}" ] && [ -n "${posted:-}" ]; then
  for _ in $(seq 100); do curl -s -H "$auth" "$inbox/messages" | grep -q '"id"' && break; sleep 0.05; done
  posted=
fi
"""
#: `curl` that fails on an error of HTTP, and does not follow a stream for longer than it takes to see that it is one.
CURL = """#!/bin/sh
case " $* " in *" -N "* | *" -sN "*) exec {curl} --fail-with-body --show-error --no-progress-meter --max-time 3 "$@" ;; esac
exec {curl} --fail-with-body --show-error --no-progress-meter --max-time 30 "$@"
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with started(installed_at(tmp_path_factory.mktemp("papers") / "data")) as up:
        yield up


@pytest.fixture(scope="module")
def path_of_commands(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which `python` is this one and `curl` fails where the server says that something is wrong."""
    folder = tmp_path_factory.mktemp("commands")
    curl = shutil.which("curl")
    assert curl, "the pages tell people to use curl: install it to run this test"
    for name, text in (("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'), ("curl", CURL.format(curl=curl))):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def is_run(block: Block) -> bool:
    return not any(block.text.lstrip().startswith(beginning) for beginning in {**NOT_RUN, **RUN_ELSEWHERE})


def of_language(page: Path, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language and is_run(block)]


def at_this_house(text: str, house: Up) -> str:
    """The same commands, for where this house listens and what it has."""
    host, port = house.smtp
    here = text.replace("127.0.0.1:8080", house.url.removeprefix("http://")).replace("127.0.0.1:2525", f"{host}:{port}")
    return here.replace('SMTP("127.0.0.1", 2525)', f'SMTP("{host}", {port})')


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if of_language(page, "sh")], ids=named)
def test_every_command_of_a_page_does_what_it_is_there_for(house: Up, path_of_commands: str, page: Path) -> None:
    """The blocks of a page are typed one after the other into one shell, as somebody does who follows it."""
    script = ["set -eu", 'posted=""', PLACEHOLDERS]
    for block in of_language(page, "sh"):
        script += [f"echo '@@ {block.place}' >&2", with_placeholders(at_this_house(block.text, house))]
        script += ["posted=yes" if "--upload-file" in block.text else "", ONE_LOOKS]
    environment = house.words.environment | {"PATH": path_of_commands}
    done = subprocess.run(
        ["sh"],
        input="\n".join(script),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    last = done.stderr.rpartition("@@ ")[2]
    assert done.returncode == 0, f"{last}\n{done.stdout[-2000:]}"
    assert "Traceback" not in done.stderr


#: Ids that stand in a page for the reader's own.
PLACEHOLDERS = """
acc=$(python main.py account create --plan pro | grep -o 'acc_[0-9a-z]*')
key=$(python main.py account list | grep "$acc" | grep -o 'key_[0-9a-z]*')
"""


def with_placeholders(text: str) -> str:
    return text.replace("acc_…", "$acc").replace("key_…", "$key")


# ── sessions: a command and what it prints ────────────────────────────────────────────────────────────────────────────


def test_make_run_prints_what_the_first_page_shows(house: Up) -> None:
    (shown,) = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("$ make run\n")]
    expected = at_this_house(shown.partition("\n")[2], house).replace(" .data", f" {house.data}")
    assert alike(house.said) == alike(expected)


def test_the_demo_prints_what_the_first_page_shows(house: Up) -> None:
    (shown,) = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("$ python main.py demo")]
    command, _, expected = shown.partition("\n")
    said = house.words.says(*command.removeprefix("$ python main.py ").split())
    assert (said.code, said.err) == (0, "")
    assert alike(said.out) == alike(expected)


@pytest.mark.timeout(200)
def test_a_stream_says_what_its_page_shows(house: Up, path_of_commands: str) -> None:
    """All lines of the shown session, in order, with this house's ids."""
    (shown,) = [block.text for block in blocks(ROOT / "docs/streams.md") if block.text.startswith("$ curl -N")]
    command, _, expected = shown.partition("\n")
    created = requests.post(f"{house.url}/api/v1/mailboxes", timeout=30).json()
    own = at_this_house(command.removeprefix("$ "), house).replace("uct_…", created["session_token"])
    own = own.replace("swift-river-7k2p9xq4@mail.example", created["address"])
    environment = house.words.environment | {"PATH": path_of_commands}
    with subprocess.Popen(["sh", "-c", own], env=environment, stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout
        lines = filter(None, (line.rstrip("\n").removeprefix(":") for line in stream.stdout))
        heard = [next(lines), next(lines)]
        with smtplib.SMTP(*house.smtp, timeout=30) as client:
            client.sendmail("ann@example.org", created["address"], "From: ann@example.org\r\nSubject: Hello\r\n\r\nHi")
        heard += lines
    assert alike("\n".join(heard)) == [line for line in alike(expected) if line]


def alike(text: str) -> list[str]:
    """The lines, with what differs from run to run made the same: numbers, times, ids, addresses."""
    text = re.sub(r"[a-z]+-[a-z]+-[0-9a-z]{8}@", "an-address@", text)
    text = re.sub(r"\b(mbx|msg|acc|key|req)_(?:[0-9a-z]{26}|…)", r"\1_id", text)
    return [re.sub(r"\d[\d.,:T+-]*(?:Z\b)?", "N", line).rstrip() for line in text.strip().splitlines()]


# ── code ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_of_the_first_page_passes(house: Up, tmp_path: Path) -> None:
    (example,) = of_language(ROOT / "README.md", "python")
    body = example.text.partition("def test_")[2].splitlines()[1:]
    assert len([line for line in body if line.strip()]) == 6
    (tmp_path / "test_example.py").write_text(at_this_house(example.text, house))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"],
        cwd=tmp_path, env=house.words.environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


# ── what needs no house ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_says_what_it_is_and_is_run_or_has_a_reason(page: Path) -> None:
    sessions = {"$ make run", "$ python main.py demo", "$ curl -N", *NOT_RUN}
    for block in blocks(page):
        assert block.language in SHOWN | {"sh", "console", "python"}, f"{block.place}: say what it is"
        if block.language == "console":
            assert block.text.startswith(tuple(sessions)), f"{block.place}: no test runs this"
        if block.language == "python" and is_run(block):
            assert block.place.startswith("README.md"), f"{block.place}: no test runs this"


@pytest.mark.parametrize("beginning", [*NOT_RUN, *RUN_ELSEWHERE])
def test_no_exception_outlives_its_block(beginning: str) -> None:
    assert any(block.text.lstrip().startswith(beginning) for page in PAGES for block in blocks(page))
    assert (ROOT / RUN_ELSEWHERE.get(beginning, "Makefile")).exists()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_something(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", read(page)):
        there = page.parent / target if target else page
        assert there.exists(), target
        if heading:
            assert heading[1:] in anchors(there), target + heading


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', read(page)))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_word_target_and_setting_that_is_named_exists(page: Path) -> None:
    text = read(page)
    words = {command.name or command.callback.__name__ for command in main.cli.registered_commands if command.callback}
    words |= {group.name for group in main.cli.registered_groups}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    settings = {f"POSTLEDGER_{name.upper()}" for name in Settings.model_fields} | {"POSTLEDGER_DATABASE_URL_FILE"}
    assert set(re.findall(r"main\.py ([a-z][\w-]*)", text)) <= words
    assert set(re.findall(r"`make (\w+)", text)) <= targets
    assert set(re.findall(r"\b(POSTLEDGER_[A-Z_]+[A-Z])\b", text)) <= settings


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_test_that_is_named_exists(page: Path) -> None:
    assert missing_tests(read(page)) == []


def test_the_page_of_problems_is_what_the_code_says() -> None:
    rows = [
        f'| <a id="{code}"></a>`{code}` | {kind.status} | {kind.title} | {kind.meaning} |'
        for code, kind in problems.KINDS.items()
    ]
    assert part(ROOT / "docs/problems.md", "problems").strip().splitlines()[2:] == rows


def test_every_guarantee_is_linked_to_its_test() -> None:
    rows = part(ROOT / "README.md", "guarantees").strip().splitlines()[2:]
    assert len(rows) >= 12
    for row in rows:
        links = re.findall(r"\[(test_\w+)\]\((tests/[\w/]+\.py)\)", row)
        assert links, row
        assert [name for name, file in links if name not in names_of_tests(ROOT / file)] == []
