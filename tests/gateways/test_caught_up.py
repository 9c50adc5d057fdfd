"""A read model has caught up where it holds what follows from every command, those included that wait to be decided."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.connection_commands import ReportRevocation, RevokeConnection
from gateways.caught_up import CaughtUp
from gateways.local_servers import Servers
from handlers import connections
from projections.connections import PROJECTION
from tests.support.deciding import deciding
from tests.support.send_house import SendHouse, send_house

REFUSED = RevokeConnection("con_nobodys", "usr_1", "caller")
NOTHING = ReportRevocation("con_nobodys", "usr_1", "done")


@pytest.fixture
async def house(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[SendHouse]:
    """Nobody decides in it, and most of its partitions never had a command."""
    async with send_house(servers, database, topic_prefix, tmp_path, roles=("project",), partitions=3) as house:
        yield house


@pytest.fixture
async def tables(house: SendHouse) -> CaughtUp:
    tables = CaughtUp(house.log, house.house.pool, projection=PROJECTION.name, topic=PROJECTION.topic)
    assert await tables.catches_up(seconds=20), "nothing was asked for"
    return tables


async def test_a_command_that_waits_keeps_the_tables_behind_until_it_is_decided(
    house: SendHouse, tables: CaughtUp
) -> None:
    assert await tables.staleness() is not None
    await house.tell_connections(REFUSED)
    assert not await tables.catches_up(seconds=0)
    assert await tables.staleness() is None
    async with deciding(house.house, connections.context()):
        assert await tables.catches_up(seconds=20)
    assert await tables.staleness() is not None


async def test_where_something_always_waits_the_moment_of_an_earlier_look_is_known(
    house: SendHouse, tables: CaughtUp
) -> None:
    now = asyncio.get_running_loop().time
    await house.tell_connections(REFUSED)
    assert await tables.staleness() is None
    looked = now()
    async with deciding(house.house, connections.context()):
        assert await tables.catches_up(seconds=20)
    await house.tell_connections(REFUSED)
    asked = now()
    stale = await tables.staleness()
    assert stale is not None
    assert stale >= asked - looked
    assert await tables.staleness() is None, "what came since waits still"


async def test_many_who_wait_in_vain_wait_together_and_who_comes_next_not_at_all(
    house: SendHouse, tables: CaughtUp
) -> None:
    await house.tell_connections(REFUSED)
    now = asyncio.get_running_loop().time
    began = now()
    assert await asyncio.gather(*[tables.catches_up(seconds=2) for _ in range(20)]) == [False] * 20
    together = now() - began
    assert not await tables.catches_up(seconds=2)
    assert 2 <= together < 10
    assert now() - began - together < 2
    async with deciding(house.house, connections.context()):
        async with asyncio.timeout(20):
            while not await tables.catches_up(seconds=2):
                await asyncio.sleep(0.1)
    assert await asyncio.gather(*[tables.catches_up(seconds=2) for _ in range(20)]) == [True] * 20


async def test_decisions_without_events_count_once_it_is_quiet(
    house: SendHouse, tables: CaughtUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.inputs.QUIET_SECONDS", 0.3)
    async with deciding(house.house, connections.context()):
        await house.tell_connections(NOTHING)
        assert await tables.catches_up(seconds=20)
