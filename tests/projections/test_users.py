"""The table of users: what events make of it, in whatever batches, and again from the log."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from domain.account import CreateAccount
from domain.fields import Digest, Sealed
from domain.users import DeleteUser, User, UserCreated
from gateways.command_line.installation import Installation
from gateways.command_line.log_words import add_log_words
from gateways.local_servers import Servers
from projections import users
from projections.migrate import migrate
from projections.replay import Rebuild
from projections.users import PROJECTION
from schemas import events
from schemas.topics import ACCOUNT_EVENTS, CONNECTION_EVENTS
from tests.support.spec import ACCOUNT, CONNECTION
from tests.support.user_history import (
    START,
    UserLog,
    as_folded,
    connection_lives,
    create_user,
    decided,
    projecting,
    rows_of,
    user_commands,
    user_lives,
    user_log,
)
from tests.support.waiting import until

TOPIC = ACCOUNT_EVENTS.name


def rebuild(told: UserLog) -> Rebuild:
    return Rebuild(PROJECTION, events.ACCOUNT, told.log, told.database)


async def folded(told: UserLog, count: int = 60) -> None:
    """A history with users who came and went, refusals and void records, folded by a live projector."""
    async with projecting(told, TOPIC) as running:
        await told.append(TOPIC, decided(ACCOUNT, user_lives(count))[0])
        await until(lambda: told.at_end("users", TOPIC))
        assert running.stopped == {}


async def test_a_user_is_a_row_and_a_deleted_one_keeps_nothing_personal(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    command = create_user("usr_1", "ada@a", external_id="crm-1")
    happened, _ = decided(
        ACCOUNT,
        [
            ("acc_1", CreateAccount("acc_1", "pro")),
            ("acc_1", command),
            ("acc_1", DeleteUser("acc_1", "usr_1", "caller", command.email_digest, command.external_id_digest)),
        ],
    )
    seen = as_folded(happened)
    assert await rows_of(connection, PROJECTION, seen[:2], ()) == [
        (
            "usr_1",
            "acc_1",
            "sealed:ada@a",
            "#ada@a",
            "sealed:name of usr_1",
            "sealed:crm-1",
            "#crm-1",
            seen[1].at,
            None,
            0,
            2,
        )
    ]
    (gone,) = await rows_of(connection, PROJECTION, seen, ())
    assert gone == ("usr_1", "acc_1", None, "#ada@a", None, None, "#crm-1", seen[1].at, seen[2].at, 0, 2)
    await connection.close()


def test_the_rows_do_not_depend_on_how_events_are_cut_into_batches(database: str) -> None:
    """All at once, one by one and in random batches; and whoever is there is whom the rules know."""
    with asyncio.Runner() as runner:
        runner.run(migrate(database))
        connection = runner.run(asyncpg.connect(database))

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(commands=st.lists(user_commands(), max_size=60), cuts=st.sets(st.integers(1, 60)))
        def equal(commands: list[Any], cuts: set[int]) -> None:
            happened, fold = decided(ACCOUNT, [("acc_1", CreateAccount("acc_1", "pro")), *once(commands)])
            seen = as_folded(happened)
            inside = {cut for cut in cuts if cut < len(seen)}
            at_once, one_by_one, cut_up = [
                runner.run(rows_of(connection, PROJECTION, seen, ends)) for ends in ((), range(len(seen)), inside)
            ]
            assert at_once == one_by_one == cut_up
            there = {row[0] for row in at_once if row[8] is None}
            assert there == {key[1] for key, found in fold.documents.items() if isinstance(found, User)}

        equal()
        runner.run(connection.close())


def once(commands: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Without those that would make a user under the id of one who is gone: an id is never used again."""
    made: set[str] = set()
    found = []
    for key, command in commands:
        if isinstance(command, DeleteUser) or command.user not in made:
            found.append((key, command))
        if not isinstance(command, DeleteUser):
            made.add(command.user)
    return found


async def test_a_rebuild_gives_equal_rows(servers: Servers, database: str, topic_prefix: str) -> None:
    async with user_log(servers, database, topic_prefix) as told:
        await folded(told)
        rows = await told.rows("users")
        assert len(rows) == 60
        assert len([row for row in rows if row[8] is not None]) == 12
        outcome = await rebuild(told).run()
        assert (outcome.count, outcome.switched) == (0, True)
        assert await told.rows("users") == rows


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (
            "update users set deleted_at = null where user_id = 'usr_5'",
            'users user_id="usr_5": deleted_at is null, by the log',
        ),
        (
            "update users set email = 'sealed:mallory@a' where user_id = 'usr_6'",
            'users user_id="usr_6": email is "sealed:mallory@a", by the log "sealed:6@a"',
        ),
        ("delete from users where user_id = 'usr_7'", 'users user_id="usr_7": is missing'),
        (
            "update users set user_id = 'usr_ghost' where user_id = 'usr_7'",
            'users user_id="usr_ghost": is there, but not by the log',
        ),
    ],
)
async def test_a_planted_row_is_found_and_named_and_repaired(
    servers: Servers, database: str, topic_prefix: str, planted: str, said: str
) -> None:
    async with user_log(servers, database, topic_prefix) as told:
        await folded(told)
        rows = await told.rows("users")
        await told.pool.execute(planted)
        dry = await rebuild(told).run(switch=False)
        assert [found for found in map(str, dry.differences) if found.startswith(said)]
        assert await told.rows("users") != rows
        assert (await rebuild(told).run()).count == dry.count
        assert await told.rows("users") == rows
        assert (await rebuild(told).run(switch=False)).count == 0


def test_the_word_replay_finds_a_wrong_row_of_users_and_of_connections(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    cli = typer.Typer()
    add_log_words(cli, lambda: Installation(servers.kafka, database, topic_prefix))

    async def history() -> None:
        async with user_log(servers, database, topic_prefix) as told:
            await folded(told, 10)
            async with projecting(told, CONNECTION_EVENTS.name):
                await told.append(CONNECTION_EVENTS.name, decided(CONNECTION, connection_lives(10))[0])
                await until(lambda: told.at_end("connections", CONNECTION_EVENTS.name))

    async def plant() -> None:
        connection = await asyncpg.connect(database)
        await connection.execute("set search_path to read")
        await connection.execute("update users set account = 'acc_2' where user_id = 'usr_3'")
        await connection.execute("update connections set owner = 'acc_2' where connection = 'con_3b'")
        await connection.close()

    asyncio.run(history())
    words = ["replay", "users", "connections", "--dry-run"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    asyncio.run(plant())
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 1
    assert [json.loads(line)["differences"] for line in told.stdout.splitlines()] == [
        ['users user_id="usr_3": account is "acc_2", by the log "acc_1"'],
        ['connections connection="con_3b": owner is "acc_2", by the log "acc_1"'],
    ]
    assert CliRunner().invoke(cli, ["replay", "users", "connections", "--yes"]).exit_code == 1
    assert CliRunner().invoke(cli, words).exit_code == 0


async def test_questions_are_answered_with_the_accounts_own_users(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with user_log(servers, database, topic_prefix) as told:
        await folded(told, 12)
        found = await users.by_id(told.pool, "acc_1", "usr_3")
        assert found is not None
        assert (found.email, found.external_id_digest) == ("sealed:3@a", "#crm-3")
        assert found.created_at > START
        assert await users.by_id(told.pool, "acc_2", "usr_3") is None, "another account's"
        assert await users.by_id(told.pool, "acc_1", "usr_5") is None, "deleted"
        first = await users.of_account(told.pool, "acc_1", limit=4)
        rest = await users.of_account(told.pool, "acc_1", limit=100, before=first[-1].position)
        assert [row.user for row in first] == ["usr_11", "usr_9", "usr_8", "usr_7"]
        assert [row.user for row in first + rest] == [f"usr_{n}" for n in range(11, -1, -1) if n % 5]
        named = await users.of_account(told.pool, "acc_1", limit=9, email_digest=Digest("#4@a"))
        assert [row.user for row in named] == ["usr_4"]
        assert await users.of_account(told.pool, "acc_1", limit=9, email_digest=Digest("#5@a")) == []
        named = await users.of_account(told.pool, "acc_1", limit=9, external_id_digest=Digest("#crm-7"))
        assert [row.user for row in named] == ["usr_7"]
        assert await users.of_account(told.pool, "acc_2", limit=9) == []


async def test_an_id_that_is_used_twice_stops_its_partition(servers: Servers, database: str, topic_prefix: str) -> None:
    """The rules never say so; a log that does is told of, and nothing is overwritten."""
    async with user_log(servers, database, topic_prefix) as told:
        await folded(told, 3)
        rows = await told.rows("users")
        twice = next(event for _, event in decided(ACCOUNT, user_lives(3))[0] if isinstance(event, UserCreated))
        async with projecting(told, TOPIC) as running:
            await told.append(TOPIC, [("acc_1", replace(twice, email=Sealed("sealed:another")))])

            async def stopped() -> bool:
                return bool(running.stopped)

            await until(stopped)
        assert await told.rows("users") == rows
