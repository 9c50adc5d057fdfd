"""One house with accounts to connect for all the tests of a module; the provider forgets everything before each."""

import uuid
from collections.abc import AsyncIterator

import pytest

from gateways.local_servers import Servers
from tests.support.connect_house import ConnectHouse, connect_house
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
async def whole_house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConnectHouse]:
    name = f"connect_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with connect_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


@pytest.fixture
async def house(whole_house: ConnectHouse) -> ConnectHouse:
    await whole_house.oauth.reset()
    return whole_house
