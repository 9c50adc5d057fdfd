"""Rates as callers meet them, what operators are told, and the documents. Over a real server."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry

from gateways.http.app import create_app
from gateways.http.edge import BODY_BYTES
from gateways.http.problems import KINDS
from gateways.local_servers import Servers
from gateways.stores.rates import Limit
from tests.support.http_house import HttpHouse, bearer, http_house, path, served
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"http_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


# ── rates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_sixty_creations_a_minute_come_from_one_address(house: HttpHouse) -> None:
    services = replace(house.services, rates_on=True, metrics=CollectorRegistry())
    async with served(services) as url, served(replace(services, metrics=CollectorRegistry())) as other:
        statuses = []
        for number in range(62):
            # Nobody believes what a client says of its own address.
            headers = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
            where = url if number % 2 else other
            async with house.http.post(f"{where}/api/v1/mailboxes", headers=headers) as answer:
                statuses.append(answer.status)
                said = await answer.text()
                if number == 0:
                    assert answer.headers["RateLimit-Policy"] == '"creation";q=60;w=60'
                    assert answer.headers["RateLimit"].startswith('"creation";r=59;t=')
        assert statuses == [201] * 60 + [429] * 2
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert json.loads(said)["code"] == "rate_limited"


async def test_a_key_asks_a_hundred_times_a_second(house: HttpHouse) -> None:
    (_, key), (_, other) = await house.account(), await house.account()
    services = replace(house.services, rates_on=True, metrics=CollectorRegistry())
    async with served(services) as url:

        async def ask(who: str) -> tuple[int, str]:
            async with house.http.get(f"{url}/api/v1/mailboxes", headers=bearer(who)) as answer:
                return answer.status, answer.headers["RateLimit-Policy"]

        answers = await asyncio.gather(*(ask(key) for _ in range(300)))
        assert {policy for _, policy in answers} == {'"requests";q=100;w=1'}
        passed = sum(status == 200 for status, _ in answers)
        assert 95 <= passed < 300
        assert {status for status, _ in answers} == {200, 429}
        assert (await ask(other))[0] == 200


async def test_a_session_token_has_the_requests_of_a_key(house: HttpHouse) -> None:
    few = Limit("requests", 5, 60)
    services = replace(house.services, rates_on=True, request_limit=few, metrics=CollectorRegistry())
    box, other = await house.mailbox(), await house.mailbox()
    async with served(services) as url:
        statuses = []
        for _ in range(7):
            async with house.http.get(f"{url}{path(box)}/messages", headers=bearer(box)) as answer:
                statuses.append(answer.status)
                assert answer.headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        assert statuses == [200] * 5 + [429] * 2
        async with house.http.get(f"{url}{path(other)}", headers=bearer(other)) as answer:
            assert answer.status == 200


async def test_credentials_are_guessed_twenty_times_a_minute_from_one_address(house: HttpHouse) -> None:
    """Whoever has valid ones goes on, whatever others try from the same address."""
    services = replace(house.services, rates_on=True, metrics=CollectorRegistry())
    (_, key), box = await house.account(), await house.mailbox()
    guesses = ["Bearer pl_live_guessed", "Bearer uct_guessed", "Basic guessed", "Bearer guessed"]
    async with served(services) as url:

        async def ask(headers: dict[str, str]) -> tuple[int, str]:
            async with house.http.get(f"{url}/api/v1/mailboxes", headers=headers) as answer:
                said = await answer.json(content_type=None)
                if answer.status == 429:
                    assert answer.headers["RateLimit-Policy"] == '"guesses";q=20;w=60'
                    assert 1 <= int(answer.headers["Retry-After"]) <= 60
                return answer.status, said["code"] if answer.status != 200 else ""

        heard = [await ask({"Authorization": guesses[number % 4]}) for number in range(24)]
        assert heard == [(401, "credentials_invalid")] * 20 + [(429, "rate_limited")] * 4
        assert [await ask(bearer(who)) for who in (key, box)] == [(200, ""), (200, "")]
        assert await ask({}) == (401, "credentials_missing")


# ── what operators and tools ask ──────────────────────────────────────────────────────────────────────────────────────


async def test_readiness_names_every_dependency(house: HttpHouse) -> None:
    async with house.http.get(f"{house.url}/readyz") as answer:
        assert (await answer.json())["dependencies"] == {
            name: {"ok": True} for name in ("postgres", "kafka", "projections")
        }
        assert answer.status == 200


async def test_what_does_not_answer_is_named_and_the_process_is_alive(house: HttpHouse) -> None:
    async def broken() -> None:
        raise ConnectionError("secret://user:password@host")

    from gateways.local_ports import free_port

    services = replace(
        house.services, kafka=f"127.0.0.1:{free_port()}", checks={"blobs": broken}, metrics=CollectorRegistry()
    )
    async with served(services) as url:
        async with house.http.get(f"{url}/readyz?wait=100ms") as answer:
            said = await answer.json()
        async with house.http.get(f"{url}/livez") as alive:
            assert alive.status == 200
    assert answer.status == 503
    assert {name for name, found in said["dependencies"].items() if not found["ok"]} == {"kafka", "blobs"}
    assert "password" not in json.dumps(said)


async def test_measurements_name_routes_and_no_ids(house: HttpHouse) -> None:
    box = await house.mailbox()
    async with house.http.get(house.url + path(box), headers=bearer(box)) as answer:
        assert answer.status == 200
    async with house.http.get(f"{house.url}/nothing/{box['address']}") as answer:
        assert answer.status == 404
    async with house.http.get(f"{house.url}/metrics") as answer:
        text = await answer.text()
    assert 'route="/api/v1/mailboxes/{address}",status="200"' in text
    assert 'route="unmatched",status="404"' in text
    assert "postledger_projection_lag_records{" in text
    assert box["address"] not in text


async def test_limits_are_told(house: HttpHouse) -> None:
    async with house.http.get(f"{house.url}/v1/limits") as answer:
        said = await answer.json()
    assert said["http"]["bodyBytes"] == BODY_BYTES
    assert said["plans"]["free"] == {
        "defaultTtlMinutes": 60, "longestTtlMinutes": 60, "liveMailboxes": 1, "liveMessages": 10,
    }  # fmt: skip
    assert said["rates"]["creation"] == said["rates"]["sends"] == {"most": 60, "seconds": 60}
    assert said["sends"]["recipients"] == 100
    assert said["sends"]["encodedBytes"]["gmail"] == 36_700_160


# ── documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def document(house: HttpHouse) -> dict[str, Any]:
    async with house.http.get(f"{house.url}/openapi.json") as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def test_the_openapi_document_is_one(house: HttpHouse) -> None:
    found = await document(house)
    assert found["openapi"].startswith("3.1")
    validate(found)


async def test_every_operation_has_an_id_of_its_own_and_every_shape_an_example(house: HttpHouse) -> None:
    found = await document(house)
    ids = [operation["operationId"] for methods in found["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    assert {
        "createMailbox", "listMailboxes", "getMailbox", "deleteMailbox", "extendMailbox", "listMessages", "getMessage",
        "deleteMessage", "getRawMessage", "getAttachment",
    } <= set(ids)  # fmt: skip
    assert [name for name, schema in found["components"]["schemas"].items() if "example" not in schema] == []


async def test_the_shapes_in_the_document_are_those_that_are_sent(house: HttpHouse) -> None:
    shapes = (await document(house))["components"]["schemas"]
    box = await house.mailbox()
    await house.deliver(box["address"], b"From: a@example.org\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n")
    (listed,) = await house.listed(box, 1)
    async with house.http.get(f"{house.url}{path(box)}/messages/{listed['id']}", headers=bearer(box)) as answer:
        message = await answer.json()
    async with house.http.get(house.url + path(box), headers=bearer(box)) as answer:
        mailbox = await answer.json()
    for name, sent in (("NewMailbox", box), ("ListedMessage", listed), ("Message", message), ("Mailbox", mailbox)):
        assert set(shapes[name]["properties"]) == set(sent)


async def test_every_refusal_in_the_document_is_explained(house: HttpHouse) -> None:
    async with house.http.get(f"{house.url}/docs/problems") as answer:
        page = await answer.text()
    assert all(f'id="{code}"' in page for code in KINDS)


async def test_pages_load_nothing_from_elsewhere(house: HttpHouse) -> None:
    for where in ("/docs", "/docs/problems"):
        async with house.http.get(house.url + where) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        shown = re.sub(r"<pre>[^<]*</pre>", "", page)  # examples are text, and some of them are addresses
        assert not re.search(r"<script|src=|https?://", shown)
    assert "createMailbox" in page or "rate_limited" in page


async def test_the_asyncapi_document_is_served(house: HttpHouse) -> None:
    async with house.http.get(f"{house.url}/asyncapi.json") as answer:
        assert (await answer.json())["asyncapi"].startswith("3.")


def test_routes_of_others_are_mounted(house: HttpHouse) -> None:
    router = APIRouter()
    router.add_api_route("/elsewhere", lambda: None, operation_id="elsewhere")
    assert create_app(replace(house.services, metrics=CollectorRegistry()), routers=[router])
