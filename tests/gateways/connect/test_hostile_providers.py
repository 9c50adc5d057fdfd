"""A provider that is slow, endless, no provider at all, or signs what it should not: a code, and no half connection."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from gateways.local_ports import free_port
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Decisions
from gateways.log.provision import provision
from schemas import commands, events
from tests.support.connect_house import (
    BACK,
    CLIENT_ID,
    CLIENT_SECRET,
    Browser,
    ConnectHouse,
    connecting_at,
    served_at,
)
from tests.support.http_house import bearer
from tests.support.oauth_server.server import Client

ADA = "ada@gmail.test"
SECONDS = 2  # of the house's connectors


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ({"delayMs": 10_000}, "provider_unavailable"),
        ({"hugeBytes": 1_000_000_000}, "provider_unavailable"),
        ({"html": True}, "provider_unavailable"),
        ({"redirectTo": "https://evil.example/token"}, "provider_unavailable"),
        ({"dropBefore": True}, "provider_unavailable"),
        ({"dropAfter": True}, "provider_unavailable"),
        ({"status": 500}, "provider_unavailable"),
        ({"status": 429, "headers": {"Retry-After": "60"}}, "provider_unavailable"),
        ({"status": 400, "error": "invalid_grant"}, "code_refused"),
        ({"status": 401, "error": "invalid_client"}, "client_broken"),
        ({"status": 400, "error": "invalid_request"}, "provider_refused"),
        ({"status": 200, "body": '{"access_token": "a"', "contentType": "application/json"}, "provider_unavailable"),
    ],
    ids=str,
)
async def test_a_token_endpoint_at_fault(house: ConnectHouse, failure: dict[str, Any], code: str) -> None:
    ada = await house.person()
    await house.oauth.control(failNext={"path": "token", **failure})
    began = time.monotonic()
    assert await house.walk(ada, login=ADA) == {"error": code}
    assert time.monotonic() - began < SECONDS + 3
    assert await house.listed(ada) == []
    assert await house.inner.services.pool.fetchval("select count(*) from vault where user_id = $1", ada.id) == 0
    await house.oauth.reset()
    assert (await house.walk(ada, login=ADA))["status"] == "connected"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"idTokenAudience": "another-client"}, "id_token_invalid"),
        ({"wrongNonce": True}, "id_token_invalid"),
        ({"idTokenBadSignature": True}, "id_token_invalid"),
        ({"idToken": {"iss": "https://evil.example"}}, "id_token_invalid"),
        ({"idToken": {"exp": 1}}, "id_token_invalid"),
        ({"idToken": {"azp": "another-client"}}, "id_token_invalid"),
        ({"issueRefreshToken": False}, "no_refresh_token"),
        ({"callbackIss": "https://evil.example"}, "issuer_mismatch"),
    ],
    ids=str,
)
async def test_a_grant_that_proves_nothing(house: ConnectHouse, words: dict[str, Any], code: str) -> None:
    ada = await house.person()
    await house.oauth.control(**words)
    assert await house.walk(ada, login=ADA) == {"error": code}
    assert await house.listed(ada) == []


async def test_others_are_served_while_a_provider_hangs(house: ConnectHouse) -> None:
    ada, browsers = await house.person(), [Browser(house) for _ in range(20)]
    callbacks = [await one.to_callback(await house.begin(ada, returnUrl=BACK), login=ADA) for one in browsers]
    await house.oauth.control(failNext={"path": "token", "times": 20, "delayMs": 10_000})
    hanging = [asyncio.create_task(one.get(callback)) for one, callback in zip(browsers, callbacks, strict=True)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await house.listed(ada)
    assert time.monotonic() - began < SECONDS
    assert {page.location for page in await asyncio.gather(*hanging)} == {f"{BACK}?error=provider_unavailable"}


@pytest.mark.parametrize(
    ("broker", "prefix", "code", "left"),
    [(f"127.0.0.1:{free_port()}", "", "unavailable", 0), ("", "undecided.", "outcome_unknown", 1)],
    ids=["no broker", "no decider"],
)
async def test_a_log_that_does_not_answer_is_told_as_it_is(
    house: ConnectHouse, broker: str, prefix: str, code: str, left: int
) -> None:
    """Refused for certain, nothing is left in the vault; where nobody knows, the tokens stay for what may come."""
    services, port, ada = house.inner.services, free_port(), await house.person()
    url = f"http://127.0.0.1:{port}"
    await house.oauth.add_client(Client(CLIENT_ID, CLIENT_SECRET, (f"{url}/v1/connect/gmail/callback",)))
    prefix = house.inner.house.prefix + prefix
    if not broker:
        await provision(services.kafka or "", prefix=prefix, partitions=1)
    log = CommandLog(broker or services.kafka or "", prefix=prefix)
    assert services.tail is not None
    decisions = Decisions(log, services.tail, services.folded, commands=commands.CONNECTION, events=events.CONNECTION)
    inner = replace(house.inner, services=replace(services, connection_decisions=decisions))
    async with connecting_at(inner, house.oauth, url) as connecting, served_at(inner, connecting, port):
        said = await replace(house, inner=inner, url=url).walk(ada, login=ADA)
    await log.close()
    operation = said.pop("operationId", None)
    assert said == {"error": code}
    assert (operation is not None) is (code == "outcome_unknown")
    if operation is not None:
        async with house.http.get(f"{house.url}/v1/operations/{operation}", headers=bearer(ada.key)) as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "pending")
    assert await services.pool.fetchval("select count(*) from vault where user_id = $1", ada.id) == left
