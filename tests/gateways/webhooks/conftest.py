"""One house that delivers webhooks for a module; each test has an account of its own."""

import uuid
from collections.abc import AsyncIterator

import pytest

from gateways.local_servers import Servers
from tests.support.servers import create_database, drop_database
from tests.support.webhook_house import WebhookHouse, webhook_house


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebhookHouse]:
    name = f"hooks_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with webhook_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)
