"""One house with connected accounts for a module; each test has accounts of its own."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.refresh_house import RefreshHouse, refresh_house
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
def database_of_the_module(servers) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    yield create_database(servers, name)
    drop_database(servers, name)


@pytest.fixture(scope="module")
async def connected_house(servers, database_of_the_module, tmp_path_factory) -> AsyncIterator[RefreshHouse]:
    prefix, folder = database_of_the_module.rpartition("/")[2] + ".", tmp_path_factory.mktemp("house")
    async with refresh_house(servers, database_of_the_module, prefix, folder) as house:
        yield house


@pytest.fixture
async def tokens(connected_house, monkeypatch) -> RefreshHouse:
    """The house, with a provider that does what it should, as Google does it. The next try comes sooner than in life."""
    monkeypatch.setattr("handlers.one_refresh.REPORTED_SECONDS", 0.5)
    await connected_house.server.reset()
    return connected_house
