"""Temporary inboxes over real HTTP: opening, listing, extending and deleting them, and who may."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from gateways.local_servers import Servers
from tests.support.http_house import HttpHouse, bearer, http_house, path
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"http_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def test_anybody_opens_an_inbox_in_one_call(house: HttpHouse) -> None:
    async with house.http.post(f"{house.url}/api/v1/mailboxes?ttl_minutes=30") as answer:
        said = await answer.json()
        assert answer.status == 201
        assert answer.headers["X-Log-Position"].startswith("mailbox.events-")
        assert answer.headers["Location"] == f"/api/v1/mailboxes/{said['address']}"
        assert answer.headers["Cache-Control"] == "no-store"
    assert set(said) == {"address", "expires_at", "session_token"}
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-z]{8}@mail\.example", said["address"])
    assert said["session_token"].startswith("uct_")
    assert said["expires_at"].endswith("+00:00")
    left = datetime.fromisoformat(said["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)
