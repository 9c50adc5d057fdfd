"""One house for all tests of attachments."""

import uuid
from collections.abc import AsyncIterator

import pytest

from gateways.local_servers import Servers
from tests.support.connected import person
from tests.support.http_house import HttpHouse, http_house
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="package")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"files_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


@pytest.fixture
async def whose(house: HttpHouse) -> tuple[str, str, str]:
    """An account, an API key of it, and a user."""
    account, key = await house.account()
    return account, key, (await person(house, account, key)).id
