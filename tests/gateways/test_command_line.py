"""The words of `main.py` that need no servers: how they read, what they print, how they fail."""

import json
import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from gateways.command_line import output
from gateways.command_line.api_keys import hash_of, is_well_formed, new_api_key, shown_prefix
from gateways.command_line.schemas import check_documents, write_documents
from gateways.local_servers import Servers
from tests.support.main_words import MAIN, Installed, Said

ROLES = ("http", "smtp", "work", "project")


@pytest.fixture
def alone(tmp_path: Path) -> Installed:
    """An installation of which nothing runs."""
    return Installed.at(tmp_path / "data")


def at_once(asked: list[tuple[Installed, list[str]]]) -> list[Said]:
    """What each says to its words: those that wait in vain for servers wait together."""
    with ThreadPoolExecutor(len(asked)) as threads:
        return list(threads.map(lambda one: one[0].says(*one[1]), asked))


def test_help_loads_no_client_of_anything(alone: Installed) -> None:
    """What makes a start slow is what it imports; `--help` and usage errors need none of it."""
    heavy = {"aiokafka", "asyncpg", "pydantic", "aiohttp", "rich", "fastapi", "faststream", "sqlalchemy", "uvloop"}
    program = (
        "import sys, contextlib; sys.path.insert(0, sys.argv[1]); import main\n"
        "with contextlib.suppress(SystemExit): main.cli(['--help'])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(MAIN.parent)],
        env=alone.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy & set(done.stderr.split()) == set()
    assert "account" in done.stdout


def test_help_is_there_in_the_blink_of_an_eye(alone: Installed) -> None:
    """In time of the processor, and the best of three: what else this machine does is not ours."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert alone.says("--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert 0 < min(took) < 0.3


@pytest.mark.parametrize("words", [[], ["account"], ["plan"], ["account", "create"], ["plan", "set"], ["demo"]])
def test_every_word_has_a_help_whose_sentences_are_whole(alone: Installed, words: list[str]) -> None:
    said = alone.says(*words, "--help")
    assert said.code == 0
    assert "..." not in said.out.replace("[ARGS]...", "")


@pytest.mark.parametrize(
    "words",
    [
        ["bogus"],
        ["account", "bogus"],
        ["account", "create", "--plan"],
        ["plan", "set"],
        ["plan", "set", "free"],
        ["plan", "set", "free", "--messages", "many"],
        ["settings", "--output", "yaml"],
    ],
)
def test_a_command_that_makes_no_sense_is_a_usage_error(alone: Installed, words: list[str]) -> None:
    said = alone.says(*words)
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.strip()


@pytest.mark.parametrize(
    "words",
    [["account", "list"], ["account", "create"], ["plan", "list"], ["provision"], ["migrate"], ["http"], ["work"]],
)
def test_without_anything_running_the_next_step_is_named(alone: Installed, words: list[str]) -> None:
    said = alone.says(*words)
    assert (said.code, said.out) == (1, "")
    assert "main.py up" in said.err
    assert "POSTLEDGER_KAFKA" in said.err
    assert len(said.err.splitlines()) == 1


def test_servers_that_do_not_answer_are_one_sentence(alone: Installed, free_port: int) -> None:
    away = alone.with_settings(
        kafka=f"127.0.0.1:{free_port}", database_url=f"postgresql://nobody:secret@127.0.0.1:{free_port}/none"
    )
    asked = [["account", "list"], ["plan", "list"], ["account", "create"], ["migrate"]]
    for words, said in zip(asked, at_once([(away, words) for words in asked]), strict=True):
        assert (said.code, said.out) == (1, ""), words
        assert "POSTLEDGER_DATABASE_URL" in said.err, words
        assert "secret" not in said.err, words
        assert len(said.err.splitlines()) == 1, words


def test_a_role_says_in_one_sentence_that_the_log_does_not_answer(
    alone: Installed, servers: Servers, database: str, free_port: int
) -> None:
    """All roles at once: each waits for a log that is away for as long as it gives one to start."""
    beside = alone.with_settings(database_url=database, kafka=f"127.0.0.1:{free_port}")
    unprovisioned = alone.with_settings(database_url=database, kafka=servers.kafka, topic_prefix=f"none{free_port}.")
    asked = [(installation, [role]) for installation in (beside, unprovisioned) for role in ROLES]
    for (_, role), said in zip(asked, at_once(asked), strict=True):
        assert said.code == 1, role
        assert "POSTLEDGER_KAFKA" in said.err, role
        assert "provision" in said.err, role
        assert len(said.err.splitlines()) == 1, role
        assert "Traceback" not in said.out, role


def test_the_tour_says_that_nobody_listens(alone: Installed, free_port: int) -> None:
    said = alone.with_settings(http=f"127.0.0.1:{free_port}").says("demo")
    assert (said.code, said.out) == (1, "")
    assert "main.py up" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_misspelt_setting_is_a_usage_error(alone: Installed) -> None:
    said = alone.with_settings(kafak="localhost:9092").says("settings")
    assert said.code == 2
    assert "POSTLEDGER_KAFAK" in said.err


def test_a_keyset_that_is_none_stops_a_role_in_one_sentence(alone: Installed, free_port: int, tmp_path: Path) -> None:
    keyset = tmp_path / "keyset.json"
    keyset.write_text("{}")
    keyset.chmod(0o600)
    said = alone.with_settings(
        kafka=f"127.0.0.1:{free_port}", database_url=f"postgresql://127.0.0.1:{free_port}/none", keyset=str(keyset)
    ).says("work")
    assert said.code == 1
    assert str(keyset) in said.err
    assert "Traceback" not in said.err


# ── printing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_settings_are_json_lines_for_programs(alone: Installed) -> None:
    said = alone.with_settings(database_url="postgresql://me:hidden@localhost/x").says("settings")
    rows = {row["name"]: row for row in said.rows}
    assert rows["POSTLEDGER_HTTP"]["default"] == "127.0.0.1:8080"
    assert rows["POSTLEDGER_DATABASE_URL"]["value"] == "***"
    assert "hidden" not in said.out


def test_settings_are_a_table_where_one_is_asked_for(alone: Installed) -> None:
    said = alone.says("settings", "--output", "table")
    assert said.code == 0
    assert re.search(r"^ *POSTLEDGER_HTTP +text +127\.0\.0\.1:8080", said.out, re.MULTILINE)


def test_a_table_on_a_terminal_has_no_colours_where_they_are_unwanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    output.show_rows([{"plan": "[red]pro", "live_messages": 500}])
    printed = capsys.readouterr().out
    assert "[red]pro" in printed  # what is shown is text, not markup
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", printed)


def test_a_terminal_is_told_that_a_list_is_empty_and_a_program_reads_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output.show_rows([])
    assert capsys.readouterr().out == ""
    output.show_rows([], "table", none="None yet.")
    assert capsys.readouterr().out == "None yet.\n"


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_well_formed_and_never_the_same() -> None:
    keys = {new_api_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch(r"pl_live_[0-9A-Za-z]{49}", key) and is_well_formed(key) for key in keys)


def test_every_slip_of_the_hand_is_seen() -> None:
    key = new_api_key()
    slips = [key[:place] + ("x" if key[place] != "x" else "y") + key[place + 1 :] for place in range(len(key))]
    assert not any(is_well_formed(slip) for slip in [*slips, key[:-1], key + "0", key.removeprefix("pl_live_"), ""])


def test_what_is_kept_of_a_key_is_its_hash_and_a_beginning() -> None:
    key = new_api_key()
    assert hash_of(key) == sha256(key.encode()).hexdigest()
    assert key.startswith(shown_prefix(key))
    assert len(shown_prefix(key)) == 12


# ── documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_documents_are_written_and_found_to_be_as_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_documents(tmp_path / "schemas")
    check_documents(tmp_path / "schemas")
    assert capsys.readouterr().out == ""


def test_a_document_that_differs_is_missing_or_too_many_is_named(alone: Installed, tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    assert alone.says("schemas", str(folder)).code == 0
    (folder / "nobody.json").write_text("{}")
    changed = folder / "asyncapi.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"asyncapi": "2.0.0"}))
    missing = next(path for path in folder.glob("account.*.json"))
    missing.unlink()
    said = alone.says("schemas", str(folder), "--check")
    assert said.code == 1
    assert all(name in said.err for name in ("nobody.json", "asyncapi.json", missing.name))
