"""What was told of a mail, to endpoints and to its own callback, can be looked at and sent again by the mail (E-05)."""

import asyncio
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateways.log.command_log import NotPromised, OutcomeUnknown
from schemas.ids import new_id
from tests.support.connected import Person, person
from tests.support.http_house import bearer, served
from tests.support.webhook_house import WebhookHouse, answering, receiving, verified

CALLBACKS = "/v1/webhooks/callbacks/deliveries"
MEMBERS = {"id", "webhookId", "messageId", "type", "status", "attempts", "nextAttemptAt", "createdAt"}


@pytest.fixture
async def ada(house: WebhookHouse) -> Person:
    account, key = await house.http.account()
    found = await person(house.http, account, key)
    await found.connect()
    return found


async def cancelled(house: WebhookHouse, who: Person, callback: str) -> str:
    """The id of a mail that was cancelled, which its callback is told of."""
    said = {
        "userId": who.id, "subject": "Canary", "body": "Canary", "bodyFormat": "text", "to": ["canary@example.org"],
        "scheduledAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "callbackUrl": callback,
    }  # fmt: skip
    send = (await house.ask("post", "/v1/messages/send", who.key, 202, json=said))["messageId"]
    await house.ask("delete", f"/v1/messages/{send}", who.key, 200)
    return str(send)


async def listed(house: WebhookHouse, who: Person, where: str) -> list[dict[str, Any]]:
    found = (await house.ask("get", where, who.key, 200))["items"]
    assert all(set(one) == MEMBERS for one in found)
    assert "anary" not in str(found)
    return list(found)


async def listed_both(house: WebhookHouse, who: Person, where: str) -> list[dict[str, Any]]:
    """Two deliveries, once both of them are shown: a receiver may hear of one a moment sooner."""
    async with asyncio.timeout(20):
        while len(found := await listed(house, who, where)) < 2:
            await asyncio.sleep(0.03)
    return found


async def becomes(house: WebhookHouse, who: Person, where: str, delivery: str, status: str) -> dict[str, Any]:
    """The delivery as the list shows it, once its status is this."""
    found: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(20):
            while True:
                found = [one for one in await listed(house, who, where) if one["id"] == delivery]
                if found and found[0]["status"] == status:
                    return found[0]
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"never {status}: {found}") from None


async def test_what_was_told_of_a_mail_is_listed_and_told_once_more(house: WebhookHouse, ada: Person) -> None:
    own = await house.ask("get", "/v1/webhooks/secret", ada.key, 200)
    async with receiving(answering(410, 204)) as bare, receiving() as registered:
        hook = await house.webhook(ada.key, registered.url, events=["send.cancelled"])
        first, second = [await cancelled(house, ada, bare.url) for _ in range(2)]
        await bare.has(2)
        await registered.has(2)
        where = f"/v1/messages/{first}/deliveries"
        told = {one["webhookId"]: one for one in await listed_both(house, ada, where)}
        assert set(told) == {hook["id"], None}
        assert {one["messageId"] for one in told.values()} == {first}
        callback = told[None]
        called = next(call for call in bare.calls if call.id == callback["id"])
        both = {one["messageId"]: one["id"] for one in await listed_both(house, ada, CALLBACKS)}
        assert both == {first: callback["id"], second: next(call.id for call in bare.calls if call is not called)}
        newest, *_ = await listed(house, ada, f"{CALLBACKS}?limit=1")
        assert newest["messageId"] == second
        gone = bare.calls[0].id
        failed = await becomes(house, ada, CALLBACKS, gone, "failed")
        assert [one["status"] for one in failed["attempts"]] == [410]
        assert await listed(house, ada, f"{CALLBACKS}?status=failed") == [failed]
        again = f"/v1/messages/{failed['messageId']}/deliveries/{gone}/resend"
        assert await house.ask("post", again, ada.key, 202) == {"id": gone}
        call = (await bare.has(3))[2]
        assert call.id == gone
        assert verified(call, own["secret"])["data"]["messageId"] == failed["messageId"]
        of_hook = f"{where}/{told[hook['id']]['id']}/resend"
        await becomes(house, ada, where, told[hook["id"]]["id"], "delivered")
        await house.ask("post", of_hook, ada.key, 202)
        assert (await registered.has(3))[2].id == told[hook["id"]]["id"]
        await house.ask("delete", f"/v1/webhooks/{hook['id']}", ada.key, 204)
        assert (await house.ask("post", of_hook, ada.key, 404))["code"] == "not_found"
        await nobody_else_sees_them(house, ada, first, callback["id"])


async def nobody_else_sees_them(house: WebhookHouse, ada: Person, send: str, delivery: str) -> None:
    stranger = (await house.http.account())[1]
    where = f"/v1/messages/{send}/deliveries"
    assert (await house.ask("get", CALLBACKS, stranger, 200))["items"] == []
    assert (await house.ask("get", where, stranger, 404))["code"] == "not_found"
    for key, path in (
        (stranger, f"{where}/{delivery}/resend"),
        (ada.key, f"{where}/{new_id('whd')}/resend"),
        (ada.key, f"{where}/whd_x/resend"),
        (ada.key, f"/v1/messages/{new_id('snd')}/deliveries/{delivery}/resend"),
    ):
        assert (await house.ask("post", path, key, 404))["code"] == "not_found"
    for narrow in ("sends:read", "webhooks:read"):
        key = await house.http.key(ada.account, narrow)
        assert (await house.ask("post", f"{where}/{delivery}/resend", key, 403))["code"] == "scope_missing"
    bad = f"{house.http.url}{where}?status=odd&limit=0"
    async with house.http.http.get(bad, headers=bearer(ada.key)) as answer:
        assert answer.status == 400
        assert {one["pointer"] for one in (await answer.json())["errors"]} == {"/query/status", "/query/limit"}
    await house.ask("delete", f"/v1/users/{ada.id}", ada.key, 204)
    assert (await house.ask("get", where, ada.key, 404))["code"] == "not_found"


async def test_pages_of_what_was_told_of_a_mail_lose_nothing_though_it_stands_in_several_partitions(
    house: WebhookHouse, ada: Person
) -> None:
    async with receiving() as bare, receiving() as registered:
        await house.webhook(ada.key, registered.url, events=["send.cancelled"])
        send = await cancelled(house, ada, bare.url)
        where = f"/v1/messages/{send}/deliveries"
        both = [one["id"] for one in await listed_both(house, ada, where)]
    await house.http.services.pool.execute(
        "update deliveries d set position = 50, partition = n.partition from unnest($1::text[], '{3,7}'::int[]) "
        "as n(delivery, partition) where d.delivery = n.delivery",
        both,
    )  # fmt: skip
    found, cursor = [], ""
    while cursor is not None:
        page = await house.ask("get", f"{where}?limit=1{cursor and '&cursor=' + cursor}", ada.key, 200)
        found += [one["id"] for one in page["items"]]
        cursor = page["nextCursor"]
    assert found == both
    position = urlsafe_b64encode(b"50").decode().rstrip("=")
    assert (await house.ask("get", f"{where}?cursor={position}", ada.key, 400))["code"] == "invalid_request"


class Failing:
    """A log of commands that takes so many of them, and then promises nothing."""

    def __init__(self, takes: int, fails: Exception) -> None:
        self._left = takes
        self._fails = fails
        self.taken: list[str] = []

    async def command(self, *_: Any, subject: str, **__: Any) -> None:
        await asyncio.sleep(0)
        if self._left == 0:
            raise self._fails
        self._left -= 1
        self.taken.append(subject)


async def test_what_could_not_be_sent_again_is_told_and_can_be_asked_for_from_there(
    house: WebhookHouse, ada: Person
) -> None:
    async with receiving() as receiver:
        hook = await house.webhook(ada.key, receiver.url)
        early = await house.test(ada.key, hook)
        await receiver.has(1)
        services, wanted = house.http.services, [early, *(new_id("whd") for _ in range(250))]
        await services.pool.execute(
            "insert into deliveries select (jsonb_populate_record(d, jsonb_build_object('delivery', e.id, "
            "'created_at', d.created_at + e.nth * interval '1 millisecond', 'position', d.position + e.nth))).* "
            "from deliveries d, unnest($2::text[]) with ordinality as e(id, nth) where d.delivery = $1",
            early, wanted[1:],
        )  # fmt: skip
        where, since = f"/v1/webhooks/{hook['id']}/resend", "2026-01-01T00:00:00Z"

        async def resent(log: Any, since: str) -> tuple[int, dict[str, Any]]:
            async with served(replace(services, command_log=log, metrics=CollectorRegistry())) as url:
                said = {"json": {"since": since}, "headers": bearer(ada.key)}
                async with house.http.http.post(url + where, **said) as answer:
                    return answer.status, await answer.json(content_type=None)

        for fails, code in ((NotPromised("away"), "unavailable"), (OutcomeUnknown("lost"), "outcome_unknown")):
            status, body = await resent(Failing(0, fails), since)
            assert (status, body["code"]) == (503, code)
            first = Failing(150, fails)
            status, body = await resent(first, since)
            assert (status, body["count"], first.taken) == (202, 150, wanted[:150])
            second = Failing(1000, fails)
            assert await resent(second, body["next"]) == (202, {"count": 101, "next": None})
            assert second.taken == wanted[150:]
