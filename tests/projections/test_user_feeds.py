"""The feeds of sends and connections: thirty days of the log's time, the same rows whoever folds them, in any batches."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateways.local_servers import Servers
from projections import connection_feed, send_feed, user_feed
from projections.feed import KEPT_DAYS
from projections.projection import Folded, Projection
from projections.replay import Rebuild
from schemas.topics import CONNECTION_EVENTS, SEND_EVENTS
from tests.support.feed_words import connection_life, send_life
from tests.support.spec import CONNECTION
from tests.support.user_history import (
    START,
    VOCABULARIES,
    UserLog,
    as_folded,
    connection_histories,
    decided,
    projecting,
    user_log,
)
from tests.support.waiting import until

PARTITIONS = 3
Happened = list[tuple[str, Any]]
LIVES = {SEND_EVENTS.name: (send_life, "snd"), CONNECTION_EVENTS.name: (connection_life, "con")}
#: Broken, mended, and broken again for longer than is kept.
BROKEN = [("usr_1", event) for event, _ in connection_life("con_1", "usr_1", "acc_1")]


def lives(topic: str, number: int) -> Happened:
    life, prefix = LIVES[topic]
    return [(f"usr_{number}", event) for event, _ in life(f"{prefix}_{number}", f"usr_{number}", f"acc_{number % 2}")]


async def rows(connection: Any, projection: Projection, happened: Sequence[Folded], cuts: Iterable[int]) -> list[Any]:
    """Of all its tables, made from nothing in batches that end at these places; nothing is left behind."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        ends = sorted({*cuts, len(happened)})
        for start, end in zip([0, *ends], ends, strict=False):
            await projection.fold(connection, list(happened[start:end]))
        return [
            [tuple(row) for row in await connection.fetch(f"select t.* from read.{table} t order by 1, 2")]
            for table in projection.tables
        ]
    finally:
        await transaction.rollback()


async def fold_of(told: UserLog, projection: Projection) -> list[Any]:
    return [
        [tuple(row) for row in await told.pool.fetch(f"select t.* from read.{table} t order by 1, 2")]
        for table in projection.tables
    ]


@pytest.mark.parametrize("projection", [send_feed.PROJECTION, connection_feed.PROJECTION], ids=lambda one: one.name)
async def test_a_rebuild_finds_the_same_rows_and_lets_go_of_the_same(
    servers: Servers, database: str, topic_prefix: str, projection: Projection
) -> None:
    """Live they were folded life by life and day by day, in three partitions; the rebuild folds each in one go."""
    topic = projection.topic
    async with user_log(servers, database, topic_prefix, partitions=PARTITIONS) as told:
        async with projecting(told, topic):
            for number in range(9):
                told.clock = START + timedelta(days=8 * number, minutes=number)
                await told.append(topic, lives(topic, number), partition=number % PARTITIONS)
                await until(lambda: told.at_end(projection.name, topic))
        kept = await fold_of(told, projection)
        (feed, *_), newest = kept, {}
        for partition, *_, at, _, _ in feed:
            newest[partition] = max(at, newest.get(partition, at))
        old = [row for row in feed if row[8] < newest[row[0]] - timedelta(days=KEPT_DAYS, minutes=1)]
        assert len(old) == len(newest) == PARTITIONS
        assert len(feed) > 20
        assert "sealed" not in str(kept)
        outcome = await Rebuild(projection, VOCABULARIES[topic], told.log, told.database).run()
        assert (outcome.count, outcome.switched) == (0, True)
        assert await fold_of(told, projection) == kept


async def test_what_streams_ask_is_answered_by_place(servers: Servers, database: str, topic_prefix: str) -> None:
    topic, table = SEND_EVENTS.name, send_feed.TABLE
    async with user_log(servers, database, topic_prefix, partitions=PARTITIONS) as told:
        async with projecting(told, topic):
            for number in range(6):
                await told.append(topic, lives(topic, number), partition=number % PARTITIONS)
            await until(lambda: told.at_end(send_feed.PROJECTION.name, topic))
        everything = dict.fromkeys(range(PARTITIONS), 0)
        mine = await user_feed.of_owner(told.pool, table, topic, "acc_1", since=everything, limit=1000)
        assert {entry.user for entry in mine} == {"usr_1", "usr_3", "usr_5"}
        places = [(entry.partition, entry.position) for entry in mine]
        assert places == sorted(places)
        half = await user_feed.of_owner(told.pool, table, topic, "acc_1", since=everything, limit=20)
        assert half == mine[:20]
        since = {half[-1].partition: half[-1].position + 1, PARTITIONS - 1: 0}
        rest = await user_feed.of_owner(told.pool, table, topic, "acc_1", since=since, limit=1000)
        assert half + rest == mine
        oldest = await user_feed.oldest(told.pool, table, "acc_1")
        assert oldest == {p: min(n for q, n in places if q == p) for p in {p for p, _ in places}}
        positions = [entry.position for entry in mine if entry.partition == 1]
        found = await user_feed.at_positions(told.pool, table, topic, 1, [*positions, 10_000])
        assert found == [entry for entry in mine if entry.partition == 1]
        # The clock of this history is long past.
        assert await user_feed.is_too_old(told.pool, table, {0: 0, 2: 10_000})
        assert not await user_feed.is_too_old(told.pool, table, {0: 10_000, 2: 10_000})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=connection_histories(), days=st.integers(0, 5), cuts=st.lists(st.integers(1, 60), max_size=8))
@example(commands=None, days=4, cuts=[1, 2, 3, 5, 8])
async def test_where_a_batch_ends_changes_nothing(
    postgres: Any, commands: Happened | None, days: int, cuts: list[int]
) -> None:
    """Random histories as the rules decide them, a few days between any two events; the example is broken for long."""
    happened = BROKEN * 3 if commands is None else decided(CONNECTION, commands)[0]
    events = [replace(seen, at=START + timedelta(days=days * seen.position)) for seen in as_folded(happened)]
    # As the projector does, for whom nobody folds the other types.
    events = [seen for seen in events if type(seen.event) in connection_feed.TOLD]
    at_once = await rows(postgres, connection_feed.PROJECTION, events, [])
    assert await rows(postgres, connection_feed.PROJECTION, events, cuts) == at_once
    assert await rows(postgres, connection_feed.PROJECTION, events, range(len(events))) == at_once
