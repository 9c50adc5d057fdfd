"""The table of connections: what events make of it, in whatever batches, and again from the log."""

import asyncio
from datetime import timedelta
from typing import Any, get_args

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from domain.connection_commands import ReportRevocation, ReportUse, RevokeConnection
from domain.connection_events import Call, ConnectionEvent
from gateways.local_servers import Servers
from projections import connections
from projections.connections import PROJECTION
from projections.migrate import migrate
from projections.replay import Rebuild
from schemas import events
from schemas.topics import CONNECTION_EVENTS
from tests.support.connection_words import COMPOSE, READONLY, authorise, failed, refreshed, token
from tests.support.spec import CONNECTION
from tests.support.user_history import (
    START,
    UserLog,
    as_folded,
    connection_histories,
    connection_lives,
    decided,
    projecting,
    rows_of,
    user_log,
)
from tests.support.waiting import until

TOPIC = CONNECTION_EVENTS.name
NAMES = [line.split()[0] for line in connections.DDL.split(");")[0].splitlines()[2:]]


#: One that goes from state to state and back, as random histories do not always.
BACK_AND_FORTH = [
    ("usr_1", command)
    for command in (
        authorise(),
        failed(1, "transient", "timed_out"),
        refreshed(2),
        failed(2, "transient", "timed_out"),
        failed(2, "reauth_required", "invalid_grant"),
        refreshed(3),
        failed(3, "transient", "rate_limited"),
        refreshed(4),
        failed(4, "reauth_required", "invalid_grant"),
        authorise(version=5, reconnects=True),
        failed(5, "reauth_required", "invalid_grant"),
        refreshed(6),
    )
]


async def table(connection: Any, *commands: Any, cuts: Any = ()) -> dict[str, dict[str, Any]]:
    """The rows by connection after these commands of one user."""
    happened, _ = decided(CONNECTION, [("usr_1", command) for command in commands])
    rows = await rows_of(connection, PROJECTION, as_folded(happened), cuts)
    return {row[0]: dict(zip(NAMES, row, strict=True)) for row in rows}


async def test_a_connected_mailbox_is_a_row(postgres: Any) -> None:
    command = authorise(scopes=[COMPOSE], now=START)
    row = (await table(postgres, command))["con_1"]
    due = row.pop("refresh_due")
    assert START + timedelta(minutes=54) <= due <= START + timedelta(minutes=55)
    assert row == {
        "connection": "con_1",
        "user_id": "usr_1",
        "owner": "acc_1",
        "provider": "gmail",
        "auth": "oauth",
        "account": "sealed:ada@gmail",
        "account_digest": "#ada@gmail",
        "subject_digest": "#subject of ada@gmail",
        "scopes": [COMPOSE],
        "missing_scopes": [READONLY],
        "state": "active",
        "token_version": 1,
        "token_fingerprint": "#token 1",
        "token_expires_at": START + timedelta(hours=1),
        "connected_at": START + timedelta(seconds=1),
        "last_used_at": None,
        "last_error": None,
        "last_error_at": None,
        "revoked_at": None,
        "at_provider": None,
        "partition": 0,
        "position": 1,
    }


async def test_a_failure_is_shown_and_due_again_and_ends_with_a_new_token(postgres: Any) -> None:
    connect, late = authorise(now=START), failed(1, "transient", "rate_limited", retry_after=600)
    row = (await table(postgres, connect, late))["con_1"]
    assert (row["state"], row["last_error"], row["last_error_at"], row["refresh_due"]) == (
        "active",
        "rate_limited",
        START + timedelta(seconds=2),
        START + timedelta(seconds=601),
    )
    row = (await table(postgres, connect, late, refreshed(2, now=START)))["con_1"]
    assert (row["token_version"], row["token_fingerprint"], row["last_error"]) == (2, "#token 2", None)
    assert row["refresh_due"] > START + timedelta(minutes=50)


async def test_who_needs_their_user_is_not_due_until_connected_anew(postgres: Any) -> None:
    connect, lost = authorise(now=START), failed(1, "reauth_required", "invalid_grant")
    row = (await table(postgres, connect, lost))["con_1"]
    assert (row["state"], row["last_error"], row["refresh_due"]) == ("reauth_required", "invalid_grant", None)
    again = authorise(version=2, now=START, reconnects=True)
    row = (await table(postgres, connect, lost, again))["con_1"]
    assert (row["state"], row["last_error"], row["token_version"], row["position"]) == ("active", None, 2, 1)
    assert row["refresh_due"] is not None
    assert row["connected_at"] == START + timedelta(seconds=3)


async def test_what_a_provider_refuses_stays_broken_with_new_tokens_and_is_due_again_once_it_is_taken(
    postgres: Any,
) -> None:
    lost = [authorise(now=START), failed(1, "reauth_required", "token_refused")]
    taken = ReportUse("con_1", "usr_1", [Call(START, "send", "deliver", "snd_1", "ok")])
    row = (await table(postgres, *lost, refreshed(2, now=START)))["con_1"]
    assert (row["state"], row["last_error"], row["token_version"]) == ("reauth_required", "token_refused", 2)
    assert row["refresh_due"] is None, (
        "a failure would put it off for nobody, and it would be asked for again and again"
    )
    row = (await table(postgres, *lost, taken))["con_1"]
    assert (row["state"], row["last_error"], row["refresh_due"]) == ("active", None, START + timedelta(seconds=4))
    password = authorise(provider="smtp", auth="password", token=token(life=None), scopes=[], asked_scopes=[])
    row = (await table(postgres, password, failed(1, "reauth_required", "login_failed"), taken))["con_1"]
    assert (row["state"], row["last_error"], row["refresh_due"]) == ("active", None, None)


async def test_a_newer_token_outlives_the_connecting_that_was_reported_after_it(postgres: Any) -> None:
    commands = [authorise(now=START), refreshed(3, now=START), authorise(version=2, now=START, reconnects=True)]
    for cuts in ((), (1, 2)):
        row = (await table(postgres, *commands, cuts=cuts))["con_1"]
        assert (row["token_version"], row["token_fingerprint"], row["state"]) == (3, "#token 3", "active")
        assert row["refresh_due"] == (await table(postgres, *commands[:2]))["con_1"]["refresh_due"]


async def test_what_is_given_up_is_shown_as_revoked_at_once_and_then_with_the_providers_answer(postgres: Any) -> None:
    commands = [authorise(now=START), RevokeConnection("con_1", "usr_1", "caller")]
    row = (await table(postgres, *commands))["con_1"]
    assert (row["state"], row["refresh_due"], row["at_provider"]) == ("revoked", None, None)
    assert row["revoked_at"] == START + timedelta(seconds=2)
    row = (await table(postgres, *commands, ReportRevocation("con_1", "usr_1", "none")))["con_1"]
    assert (row["state"], row["at_provider"]) == ("revoked", "none")


async def test_the_last_use_is_the_latest_call_in_whatever_order_they_are_reported(postgres: Any) -> None:
    calls = [Call(START + timedelta(seconds=second), "send", "deliver", "snd_1", "ok") for second in (5, 9, 7)]
    uses = [ReportUse("con_1", "usr_1", calls), ReportUse("con_1", "usr_1", calls[:1])]
    row = (await table(postgres, authorise(), *uses))["con_1"]
    assert row["last_used_at"] == START + timedelta(seconds=9)


async def test_questions_name_what_is_there(servers: Servers, database: str, topic_prefix: str) -> None:
    async with user_log(servers, database, topic_prefix) as told:
        lives = decided(CONNECTION, connection_lives(6))[0]
        async with projecting(told, TOPIC):
            await told.append(TOPIC, lives)
            await until(lambda: told.at_end("connections", TOPIC))
        found = await connections.of_mailbox(told.pool, "usr_1", "gmail", authorise().account_digest)
        assert found is not None
        assert (found.connection, found.state, found.token_version) == ("con_1a", "active", 3)
        assert await connections.of_mailbox(told.pool, "usr_0", "gmail", authorise().account_digest) is None, "revoked"
        assert await connections.of_mailbox(told.pool, "usr_1", "outlook", authorise().account_digest) is None
        assert await connections.of_mailbox(told.pool, "usr_9", "gmail", authorise().account_digest) is None


# ── the same rows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rows_do_not_depend_on_how_events_are_cut_into_batches(database: str) -> None:
    """All at once, one by one and in random batches; and each row's state is what the rules know of it."""
    with asyncio.Runner() as runner:
        runner.run(migrate(database))
        connection = runner.run(asyncpg.connect(database))

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @example(commands=BACK_AND_FORTH, cuts={3, 5})
        @given(commands=connection_histories(), cuts=st.sets(st.integers(1, 40)))
        def equal(commands: list[Any], cuts: set[int]) -> None:
            happened, fold = decided(CONNECTION, commands)
            seen = as_folded(happened)
            inside = {cut for cut in cuts if cut < len(seen)}
            at_once, one_by_one, cut_up = [
                runner.run(rows_of(connection, PROJECTION, seen, ends)) for ends in ((), range(len(seen)), inside)
            ]
            assert at_once == one_by_one == cut_up
            known = {
                name: (found.state, found.version)
                for user in fold.documents.values()
                for name, found in user.connections.items()
            }
            for row in at_once:
                shown = dict(zip(NAMES, row, strict=True))
                state, version = known.get(shown["connection"], ("revoking", 0))
                assert shown["state"] == {"revoking": "revoked"}.get(state, state)
                assert state != "active" or shown["token_version"] <= version

        equal()
        runner.run(connection.close())


def rebuild(told: UserLog) -> Rebuild:
    return Rebuild(PROJECTION, events.CONNECTION, told.log, told.database)


async def folded(told: UserLog) -> None:
    """Histories with every type of event and with void records, in two partitions, folded by a live projector."""
    happened = decided(CONNECTION, connection_lives(40))[0]
    assert {type(event) for _, event in happened} == {*get_args(ConnectionEvent)}
    halves: dict[bool, list[tuple[str, Any]]] = {True: [], False: []}
    for key, event in happened:
        halves[key.endswith(("1", "3", "5"))].append((key, event))
    async with projecting(told, TOPIC) as running:
        for partition, half in enumerate(halves.values()):
            await told.append(TOPIC, half, partition=partition)
        await until(lambda: told.at_end("connections", TOPIC))
        assert running.stopped == {}


async def test_a_rebuild_gives_equal_rows(servers: Servers, database: str, topic_prefix: str) -> None:
    async with user_log(servers, database, topic_prefix, partitions=2) as told:
        await folded(told)
        rows = await told.rows("connections")
        assert len(rows) == 80
        outcome = await rebuild(told).run()
        assert (outcome.count, outcome.switched) == (0, True)
        assert await told.rows("connections") == rows


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (
            "update connections set state = 'active' where connection = 'con_2b'",
            'connections connection="con_2b": state is "active", by the log "reauth_required"',
        ),
        (
            "update connections set token_version = 9 where connection = 'con_1a'",
            'connections connection="con_1a": token_version is 9, by the log 3',
        ),
        ("delete from connections where connection = 'con_7a'", 'connections connection="con_7a": is missing'),
        (
            "update connections set connection = 'con_ghost' where connection = 'con_7a'",
            'connections connection="con_ghost": is there, but not by the log',
        ),
    ],
)
async def test_a_planted_row_is_found_and_named_and_repaired(
    servers: Servers, database: str, topic_prefix: str, planted: str, said: str
) -> None:
    async with user_log(servers, database, topic_prefix, partitions=2) as told:
        await folded(told)
        rows = await told.rows("connections")
        await told.pool.execute(planted)
        dry = await rebuild(told).run(switch=False)
        assert said in list(map(str, dry.differences))
        assert not dry.switched
        assert await told.rows("connections") != rows
        assert (await rebuild(told).run()).count == dry.count
        assert await told.rows("connections") == rows
        assert (await rebuild(told).run(switch=False)).count == 0
