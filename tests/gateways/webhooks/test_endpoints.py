"""Endpoints over HTTP: what is refused and why, whose they are, and secrets that are shown once."""

import asyncio
from typing import Any

import pytest

from domain.webhook_words import TYPES
from domain.webhooks import MOST_ENDPOINTS, MOST_RETIRING
from gateways.providers.egress import Egress
from schemas.ids import new_id
from tests.support.everywhere import found_in, tables_of, topics_of
from tests.support.http_house import bearer
from tests.support.webhook_house import WebhookHouse, receiving, verified

URL = "https://hooks.example.org/postledger"


@pytest.fixture
async def key(house: WebhookHouse) -> str:
    return (await house.http.account())[1]


async def faults(house: WebhookHouse, key: str, body: Any, path: str = "/v1/webhooks") -> dict[str, str]:
    """What is wrong with it, by pointer."""
    answer = await house.ask("post", path, key, 400, json=body)
    assert answer["code"] == "invalid_request"
    return {fault["pointer"]: fault["message"] for fault in answer["errors"]}


async def test_an_endpoint_is_shown_without_its_secret_afterwards(house: WebhookHouse, key: str) -> None:
    made = await house.webhook(key, URL, events=["send.failed", "send.sent", "send.sent"], description="Orders")
    assert made["secret"].startswith("whsec_")
    assert made["publicKey"].startswith("whpk_")
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert shown | {"id": "", "createdAt": "", "publicKey": ""} == {
        "id": "",
        "url": URL,
        "events": ["send.sent", "send.failed"],
        "description": "Orders",
        "state": "active",
        "disabledBecause": None,
        "publicKey": "",
        "createdAt": "",
    }
    assert await house.ask("get", f"/v1/webhooks/{made['id']}", key, 200) == shown
    other = await house.webhook(key, "https://other.example.org")
    assert other["events"] == [*TYPES]
    listed = await house.ask("get", "/v1/webhooks", key, 200)
    assert [one["id"] for one in listed["items"]] == [other["id"], made["id"]]
    assert all("secret" not in one for one in listed["items"])
    page = await house.ask("get", "/v1/webhooks?limit=1", key, 200)
    rest = await house.ask("get", f"/v1/webhooks?limit=1&cursor={page['nextCursor']}", key, 200)
    assert [page["items"], rest["items"], rest["nextCursor"]] == [listed["items"][:1], listed["items"][1:], None]
    await house.ask("delete", f"/v1/webhooks/{made['id']}", key, 204)
    await house.ask("get", f"/v1/webhooks/{made['id']}", key, 404)
    await house.ask("delete", f"/v1/webhooks/{made['id']}", key, 404)
    await house.ask("get", "/v1/webhooks/whk_nonsense", key, 404)


async def test_everything_that_is_wrong_is_told_at_once(house: WebhookHouse, key: str) -> None:
    found = await faults(
        house,
        key,
        {"url": "gopher://x", "events": ["send.sent", "send.lost", 7], "description": "a\r\nb", "secret": "x"},
    )
    assert set(found) == {"/url", "/events/1", "/events/2", "/description", "/secret"}
    assert all(name in found["/events/1"] for name in TYPES)
    assert set(await faults(house, key, {})) == {"/url"}
    assert set(await faults(house, key, {"url": URL, "events": []})) == {"/events"}
    assert set(await faults(house, key, {"url": URL, "events": "send.sent"})) == {"/events"}
    assert set(await faults(house, key, {"url": "https://x.example.org/" + "a" * 2048})) == {"/url"}
    await house.webhook(key, "https://x.example.org/".ljust(2048, "a"))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://169.254.169.254/latest", "https://0x7f.1/",
        "https://127。0。0。1/", "https://2130706433/", "https://u:p@example.org/", "https://example.org/#f",
        "https://example.org:9092/", "http://example.org/", "https://example.org\\@127.0.0.1/", "ftp://example.org/", "x",
    ],
)  # fmt: skip
async def test_a_url_that_leads_inside_or_is_none_is_refused(
    house: WebhookHouse, key: str, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """L-01 and L-04, as far as they are told before anything is looked up."""
    object.__setattr__(house.http.services, "egress", Egress())
    try:
        assert set(await faults(house, key, {"url": url})) == {"/url"}
    finally:
        object.__setattr__(house.http.services, "egress", Egress(allow_private=True))


async def test_a_repeated_request_answers_the_same_with_the_secret(house: WebhookHouse, key: str) -> None:
    headers = bearer(key) | {"Idempotency-Key": new_id("try")}
    url = f"{house.http.url}/v1/webhooks"

    async def once(**body: Any) -> tuple[int, Any, str | None]:
        async with house.http.http.post(url, headers=headers, json=body) as answer:
            return answer.status, await answer.json(), answer.headers.get("Idempotency-Replayed")

    answers = await asyncio.gather(*[once(url=URL, events=["send.sent"]) for _ in range(5)])
    assert {status for status, _, _ in answers} == {201}
    assert len({body["id"] for _, body, _ in answers}) == len({body["secret"] for _, body, _ in answers}) == 1
    assert [replayed for _, _, replayed in answers].count("true") == 4
    status, body, _ = await once(url=URL)
    assert (status, body["code"]) == (409, "idempotency_key_reused")


async def test_there_is_a_limit_to_endpoints_and_rotations(house: WebhookHouse, key: str) -> None:
    made = [await house.webhook(key, URL) for _ in range(MOST_ENDPOINTS)]
    assert (await house.ask("post", "/v1/webhooks", key, 409, json={"url": URL}))["code"] == "too_many_webhooks"
    await house.ask("delete", f"/v1/webhooks/{made[0]['id']}", key, 204)
    await house.webhook(key, URL)
    for path in (f"/v1/webhooks/{made[1]['id']}/rotate", "/v1/webhooks/secret/rotate"):
        secrets = [(await house.ask("post", path, key, 200))["secret"] for _ in range(MOST_RETIRING)]
        assert len(set(secrets)) == MOST_RETIRING
        assert (await house.ask("post", path, key, 409))["code"] == "rotated_too_often"


async def test_the_accounts_own_secret_can_be_looked_at_and_rotated(house: WebhookHouse, key: str) -> None:
    first = await house.ask("get", "/v1/webhooks/secret", key, 200)
    assert await house.ask("get", "/v1/webhooks/secret", key, 200) == first
    rotated = await house.ask("post", "/v1/webhooks/secret/rotate", key, 200)
    assert rotated["secret"] != first["secret"]
    assert await house.ask("get", "/v1/webhooks/secret", key, 200) == rotated
    other = (await house.http.account())[1]
    assert (await house.ask("get", "/v1/webhooks/secret", other, 200))["secret"] not in {
        first["secret"],
        rotated["secret"],
    }


async def test_who_may_only_read_sees_no_secret(house: WebhookHouse) -> None:
    account, key = await house.http.account()
    reader = await house.http.key(account, "webhooks:read")
    hook = await house.webhook(key, URL)
    await house.ask("get", f"/v1/webhooks/{hook['id']}", reader, 200)
    for method, path in (
        ("get", "/v1/webhooks/secret"),
        ("post", "/v1/webhooks/secret/rotate"),
        ("post", f"/v1/webhooks/{hook['id']}/rotate"),
        ("post", f"/v1/webhooks/{hook['id']}/test"),
        ("delete", f"/v1/webhooks/{hook['id']}"),
    ):
        assert (await house.ask(method, path, reader, 403))["code"] == "scope_missing"


async def test_a_stranger_finds_nothing_and_changes_nothing(house: WebhookHouse, key: str) -> None:
    stranger = (await house.http.account())[1]
    async with receiving() as receiver:
        hook = await house.webhook(key, receiver.url)
        delivery = await house.test(key, hook)
        await house.delivery(key, hook, delivery, lambda one: one["status"] == "delivered")
        one = f"/v1/webhooks/{hook['id']}"
        for method, path in (
            ("get", one),
            ("delete", one),
            ("post", f"{one}/rotate"),
            ("post", f"{one}/enable"),
            ("post", f"{one}/test"),
            ("get", f"{one}/deliveries"),
            ("post", f"{one}/deliveries/{delivery}/resend"),
            ("post", f"{one}/resend"),
        ):
            await house.ask(method, path, stranger, 404, json={"since": "2026-01-01T00:00:00Z"})
        own = await house.webhook(stranger, receiver.url)
        await house.ask("post", f"/v1/webhooks/{own['id']}/deliveries/{delivery}/resend", stranger, 404)
        again = await house.test(key, hook)
        await house.delivery(key, hook, again, lambda one: one["status"] == "delivered")
        assert [call.id for call in receiver.calls] == [delivery, again]
        assert verified(receiver.calls[-1], hook["secret"])["type"] == "webhook.test"


async def test_secrets_and_urls_stand_in_no_topic_and_no_table(house: WebhookHouse, key: str) -> None:
    async with receiving() as receiver:
        url = receiver.url + "/canary-in-the-path?token=canary"
        hook = await house.webhook(key, url, description="canary-description")
        rotated = await house.ask("post", f"/v1/webhooks/{hook['id']}/rotate", key, 200)
        own = await house.ask("get", "/v1/webhooks/secret", key, 200)
        delivery = await house.test(key, hook)
        await house.delivery(key, hook, delivery, lambda one: one["status"] == "delivered")
    inside = house.http.house
    places = await topics_of(inside.kafka, inside.prefix) | await tables_of(inside.pool)
    assert places[f"{inside.prefix}webhook.deliver"]
    secrets = {one["secret"].removeprefix("whsec_") for one in (hook, rotated, own)}
    assert found_in(places, secrets | {"canary-in-the-path", "canary-description"}) == []
