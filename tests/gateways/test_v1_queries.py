"""Queries of `/v1`: a slip is told, and never answered with more than was asked for. What is read back may be away."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateways.local_servers import Servers
from gateways.log.decisions import Asked, Decision, Decisions
from gateways.stores.postgres import Pool, open_pool
from schemas import commands, events
from tests.support.connected import person
from tests.support.http_house import HttpHouse, bearer, http_house, served
from tests.support.servers import create_database, drop_database

LISTS = {"/v1/users": ["email", "externalId", "limit", "cursor"], "/v1/connections": ["userId", "state", "provider"]}


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"queries_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def got(house: HttpHouse, where: str, key: str) -> tuple[int, dict[str, Any]]:
    async with house.http.get(house.url + where, headers=bearer(key)) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("said", ["user_id", "userid", "UserId", "user-id", "userId[]", "user.id"])
async def test_a_filter_that_is_spelled_in_another_way_is_told(house: HttpHouse, said: str) -> None:
    """Otherwise a product that asks for one user's connections would get those of all."""
    account, key = await house.account()
    ada, bob = await person(house, account, key), await person(house, account, key)
    await ada.connect()
    status, body = await got(house, f"/v1/connections?{said}={bob.id}", key)
    assert (status, body["code"]) == (400, "invalid_request")
    assert body["errors"] == [{"pointer": f"/query/{said}", "message": "This parameter is spelled `userId`."}]


@pytest.mark.parametrize(("where", "name"), [(where, name) for where, names in LISTS.items() for name in names])
async def test_a_parameter_that_is_said_twice_is_told(house: HttpHouse, where: str, name: str) -> None:
    _, key = await house.account()
    values = {"limit": "1", "state": "all", "provider": "gmail", "cursor": "MTI"}
    value = values.get(name, "x")
    status, body = await got(house, f"{where}?{name}={value}&{name}={value}", key)
    assert (status, [fault["pointer"] for fault in body["errors"]]) == (400, [f"/query/{name}"])


async def test_what_is_no_parameter_of_ours_is_left_alone(house: HttpHouse) -> None:
    _, key = await house.account()
    for where in LISTS:
        assert (await got(house, f"{where}?_=1&trace=x&trace=y&_=2", key))[0] == 200


class ThenAway(Decisions):
    """Decisions after which Postgres can't be asked any more."""

    pool: Pool

    async def ask(self, asked: Asked, **more: Any) -> Decision:
        decision = await super().ask(asked, **more)
        await asyncio.wait_for(self.pool.close(), 5)
        return decision


async def test_a_user_who_cannot_be_read_back_is_not_called_unmade(house: HttpHouse) -> None:
    """Told that nothing was changed, a product would make the user again and be told that the address is taken."""
    services, (_, key) = house.services, await house.account()
    assert services.tail is not None
    decisions = ThenAway(
        services.command_log, services.tail, services.folded, commands=commands.ACCOUNT, events=events.ACCOUNT
    )
    decisions.pool = await open_pool(house.house.database_url, size=2)
    dying = replace(services, account_decisions=decisions, pool=decisions.pool, metrics=CollectorRegistry())
    body = {"email": "ada@example.org", "displayName": "Ada"}
    async with (
        served(dying) as url,
        house.http.post(f"{url}/v1/users", headers=bearer(key), json=body) as answer,
    ):
        assert answer.status == 202
    _, operation = await got(house, answer.headers["Location"], key)
    _, found = await got(house, "/v1/users?email=ada@example.org", key)
    assert [f"/v1/users/{one['id']}" for one in found["items"]] == [operation["location"]]
