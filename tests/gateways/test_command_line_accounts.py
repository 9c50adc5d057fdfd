"""`account` and `plan` on an installation that runs: real servers, real workers, processes of their own."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gateways.command_line.api_keys import hash_of, is_well_formed
from gateways.local_servers import Servers
from tests.support.main_words import Installed
from tests.support.servers import create_database, drop_database


def installed(servers: Servers, data: Path, database: str) -> Installed:
    prefix = database.rpartition("/")[2] + "."
    return Installed.at(data, kafka=servers.kafka, database_url=database, topic_prefix=prefix, partitions="2")


@pytest.fixture(scope="module")
def here(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """An installation whose workers run; shared by the tests of this file."""
    name = f"test_{uuid.uuid4().hex}"
    installation = installed(servers, tmp_path_factory.mktemp("data"), create_database(servers, name))
    assert installation.says("provision").err == ""
    with installation.running("work", "project", name="workers"):
        yield installation
    drop_database(servers, name)


async def test_a_new_account_has_one_key_that_is_printed_once_and_kept_as_a_hash(here: Installed) -> None:
    said = here.says("account", "create", "--plan", "pro")
    assert (said.code, said.err) == (0, "")
    made = said.row
    assert set(made) == {"account", "key"}
    assert made["account"].startswith("acc_")
    assert is_well_formed(made["key"])
    connection = await asyncpg.connect(here.environment["POSTLEDGER_DATABASE_URL"])
    try:
        kept = await connection.fetchrow("select * from read.api_keys where account = $1", made["account"])
    finally:
        await connection.close()
    assert kept["hash"] == hash_of(made["key"])
    assert made["key"] not in str(dict(kept))


def test_an_account_can_be_read_by_people(here: Installed) -> None:
    said = here.says("account", "create", "--output", "table")
    assert said.code == 0
    assert "shown this once" in said.out
    assert {"Account", "API"} <= {line.split()[0] for line in said.out.splitlines() if line.strip()}


def test_an_unknown_plan_is_not_found_and_the_known_ones_are_named(here: Installed) -> None:
    before = here.says("account", "list").out
    said = here.says("account", "create", "--plan", "gold")
    assert (said.code, said.out) == (3, "")
    assert "free, pro" in said.err
    assert here.says("account", "list").out == before


def test_keys_come_and_go_and_the_list_shows_them(here: Installed) -> None:
    account = here.says("account", "create").row["account"]
    second = here.says("account", "key", account).row
    assert second["account"] == account
    (row,) = [row for row in here.says("account", "list").rows if row["account"] == account]
    assert row["plan"] == "free"
    assert len(row["keys"]) == 2
    key_id = next(key.split()[0] for key in row["keys"] if second["key"][:12] in key)
    assert here.says("account", "revoke", key_id).row == {"account": account, "key": key_id}
    (row,) = [row for row in here.says("account", "list").rows if row["account"] == account]
    assert key_id not in str(row["keys"])
    assert len(row["keys"]) == 1
    again = here.says("account", "revoke", key_id)
    assert again.code == 3
    assert "account list" in again.err


def test_a_key_can_be_narrowed_and_the_list_says_to_what(here: Installed) -> None:
    account = here.says("account", "create", "--scope", "mailboxes:read").row["account"]
    narrowed = here.says("account", "key", account, "--scope", "mailboxes:write", "--scope", "events:read")
    assert narrowed.code == 0
    (row,) = [row for row in here.says("account", "list").rows if row["account"] == account]
    assert [key.split("…")[1] for key in row["keys"]] == [" mailboxes:read)", " mailboxes:write events:read)"]
    for words in (["create"], ["key", account]):
        said = here.says("account", *words, "--scope", "everything")
        assert (said.code, said.out) == (2, "")
        assert "no scope everything" in said.err
        assert "mailboxes:read" in said.err


def test_an_account_moves_to_another_plan(here: Installed) -> None:
    account = here.says("account", "create").row["account"]
    assert here.says("account", "plan", account, "pro").row == {"account": account, "plan": "pro"}
    (row,) = [row for row in here.says("account", "list").rows if row["account"] == account]
    assert row["plan"] == "pro"


@pytest.mark.parametrize("words", [["key", "acc_nobody"], ["plan", "acc_nobody", "pro"], ["revoke", "key_none"]])
def test_what_is_not_there_is_not_found(here: Installed, words: list[str]) -> None:
    said = here.says("account", *words)
    assert (said.code, said.out) == (3, "")
    assert words[1] in said.err
    assert "account list" in said.err


def test_a_plan_keeps_what_is_not_changed(here: Installed) -> None:
    before = {row["plan"]: row for row in here.says("plan", "list").rows}["free"]
    changed = here.says("plan", "set", "free", "--messages", "1000")
    assert (changed.code, changed.err) == (0, "")
    after = {row["plan"]: row for row in here.says("plan", "list").rows}["free"]
    assert after == before | {"live_messages": 1000} == changed.row


def test_a_new_plan_needs_all_its_limits(here: Installed) -> None:
    assert here.says("plan", "set", "team", "--messages", "5").code == 2
    made = here.says(
        "plan", "set", "team", "--messages", "5", "--mailboxes", "2", "--default-ttl", "10", "--longest-ttl", "20"
    )
    assert made.row == {
        "plan": "team",
        "default_ttl_minutes": 10,
        "longest_ttl_minutes": 20,
        "live_mailboxes": 2,
        "live_messages": 5,
    }
    assert here.says("account", "create", "--plan", "team").code == 0


def test_a_plan_that_cannot_be_is_refused_and_changes_nothing(here: Installed) -> None:
    before = here.says("plan", "list").out
    for limits in (
        ["--messages", "0"],
        ["--messages", "3000000000"],
        ["--longest-ttl", "43201"],
        ["--default-ttl", "61", "--longest-ttl", "60"],
    ):
        said = here.says("plan", "set", "pro", *limits)
        assert (said.code, said.out) == (2, "")
        assert len(said.err.splitlines()) == 1
    assert here.says("plan", "list").out == before


def test_a_wrong_password_is_an_answer_of_its_own(here: Installed) -> None:
    url = here.environment["POSTLEDGER_DATABASE_URL"]
    role, _, place = url.removeprefix("postgresql://").partition("@")
    said = here.with_settings(database_url=f"postgresql://{role.split(':')[0]}:wrong@{place}").says("account", "list")
    assert (said.code, said.out) == (5, "")
    assert "password" in said.err


def test_a_database_without_tables_says_what_to_run(servers: Servers, database: str, tmp_path: Path) -> None:
    said = installed(servers, tmp_path, database).says("account", "list")
    assert (said.code, said.out) == (1, "")
    assert "main.py provision" in said.err


def test_tables_can_be_made_alone(servers: Servers, database: str, tmp_path: Path) -> None:
    installation = installed(servers, tmp_path, database)
    assert installation.says("migrate").code == 0
    assert {row["plan"] for row in installation.says("plan", "list").rows} == {"free", "pro"}
    said = installation.says("account", "create")
    assert said.code == 1
    assert "main.py provision" in said.err


def test_without_a_worker_the_time_runs_out(servers: Servers, database: str, tmp_path: Path) -> None:
    installation = installed(servers, tmp_path, database)
    assert installation.says("provision").code == 0
    said = installation.says("account", "create")
    assert (said.code, said.out) == (4, "")
    assert "main.py up" in said.err
    with installation.running("work", "project", name="workers"):
        assert installation.says("account", "create").code == 0
        assert len(installation.says("account", "list").rows) == 2  # what was recorded is decided once somebody can
