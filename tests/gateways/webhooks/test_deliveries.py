"""Deliveries from the fact to the receiver and back onto the record, through Kafka and Postgres (E-01, E-03, E-05)."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from domain.callbacks import ATTEMPTS
from domain.connection_commands import ReportRefresh, RevokeConnection
from handlers import webhook_deliver
from tests.support.connected import Person, person
from tests.support.http_house import bearer
from tests.support.webhook_house import (
    SCALE,
    SECONDS,
    Received,
    Receiver,
    WebhookHouse,
    answering,
    disabled,
    letters,
    receiving,
    verified,
)

MAIL = b"From: Ann <ann@example.org>\r\nSubject: Secret-canary\r\n\r\nSecret-canary in the text.\r\n"


@pytest.fixture
async def account(house: WebhookHouse) -> tuple[str, str]:
    return await house.http.account()


@pytest.fixture
def key(account: tuple[str, str]) -> str:
    return account[1]


def ended(delivery: Any) -> bool:
    return bool(delivery["status"] != "pending")


# ── what happened is told ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_mail_is_told_of_when_it_can_be_read_and_nothing_of_it_is_said(house: WebhookHouse, key: str) -> None:
    """E-05, and whoever asks at once finds the message."""
    found: list[int] = []

    async def looks(receiver: Receiver, request: web.Request) -> web.StreamResponse:
        said = json.loads(receiver.calls[-1].body)
        async with house.http.http.get(f"{box_url}/{said['data']['messageId']}", headers=bearer(key)) as answer:
            found.append(answer.status)
        return web.Response(status=200)

    async with receiving(looks) as receiver:
        hook = await house.webhook(key, receiver.url, events=["mailbox.message_received"])
        box = await house.http.mailbox(key)
        box_url = f"{house.http.url}/api/v1/mailboxes/{box['address']}/messages"
        await house.http.deliver(box["address"], MAIL, 3)
        calls = await receiver.has(3)
        bodies = [verified(call, hook["secret"]) for call in calls]
        await house.ask("delete", f"/api/v1/mailboxes/{box['address']}", key, 204)
    assert found == [200, 200, 200]
    assert len({call.id for call in calls}) == len({body["data"]["messageId"] for body in bodies}) == 3
    for body, call in zip(bodies, calls, strict=True):
        assert set(body) == {"type", "timestamp", "data"}
        assert body["type"] == "mailbox.message_received"
        assert abs(datetime.fromisoformat(body["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
        assert set(body["data"]) == {"messageId", "mailboxId", "status", "state", "hasAttachments"}
        assert len(call.body) < 1000
        for secret in (b"canary", b"ann@example.org", box["address"].encode(), box["session_token"].encode()):
            assert secret not in call.body


async def test_only_those_who_want_it_are_told_and_nobody_of_what_was_before(house: WebhookHouse, key: str) -> None:
    """A log that is read from its beginning tells nothing: see also E-04."""
    stranger = (await house.http.account())[1]
    before = await house.http.mailbox(key)
    await house.http.deliver(before["address"], MAIL)
    await house.http.listed(before | {"session_token": key}, 1)
    async with receiving() as wants, receiving() as other, receiving() as foreign, receiving() as gone:
        hook = await house.webhook(key, wants.url)
        await house.webhook(key, other.url, events=["connection.revoked"])
        await house.webhook(stranger, foreign.url)
        removed = await house.webhook(key, gone.url)
        await house.ask("delete", f"/v1/webhooks/{removed['id']}", key, 204)
        anonymous = await house.http.mailbox()
        await house.http.deliver(anonymous["address"], MAIL)
        await house.http.deliver(before["address"], MAIL)
        (call,) = await wants.has(1)
        last = await house.test(key, hook)
        await house.delivery(key, hook, last, ended)
        assert verified(call, hook["secret"])["type"] == "mailbox.message_received"
        assert [len(receiver.calls) for receiver in (wants, other, foreign, gone)] == [2, 0, 0, 0]


async def test_a_connections_troubles_are_told(house: WebhookHouse, account: tuple[str, str]) -> None:
    name, key = account
    async with receiving() as receiver:
        hook = await house.webhook(key, receiver.url, events=["connection.revoked", "connection.reauth_required"])
        ada = await person(house.http, name, key)
        connection = await ada.connect()
        await ada.command(
            connection, ReportRefresh(connection, ada.id, 1, "reauth_required", "timer", code="invalid_grant")
        )
        await ada.command(connection, RevokeConnection(connection, ada.id, "caller"))
        calls = await receiver.has(2)
    said = {body["type"]: body["data"] for body in (verified(call, hook["secret"]) for call in calls)}
    ours = {"connectionId": connection, "userId": ada.id}
    assert said["connection.reauth_required"] == {**ours, "status": "reauth_required", "code": "invalid_grant"}
    assert said["connection.revoked"] == {**ours, "status": "revoked", "by": "caller"}


async def test_a_sends_own_callback_is_signed_with_the_accounts_secret_or_its_endpoints(
    house: WebhookHouse, account: tuple[str, str]
) -> None:
    name, key = account
    ada = await person(house.http, name, key)
    await ada.connect()
    own = await house.ask("get", "/v1/webhooks/secret", key, 200)
    async with receiving() as bare, receiving() as registered:
        hook = await house.webhook(key, registered.url, events=["send.sent"])
        for receiver in (bare, registered):
            send = await _cancelled(house, ada, receiver.url)
            (call,) = await receiver.has(1)
            body = verified(call, own["secret"] if receiver is bare else hook["secret"])
            assert body["type"] == "send.cancelled"
            assert body["data"] == {
                "messageId": send, "userId": ada.id, "status": "cancelled", "by": "caller",
            }  # fmt: skip
            assert b"anary" not in call.body
        assert len(bare.calls) == len(registered.calls) == 1


async def _cancelled(house: WebhookHouse, user: Person, callback: str) -> str:
    """The id of a mail that was cancelled, which its callback is told of."""
    said = {
        "userId": user.id, "subject": "Canary", "body": "Canary", "bodyFormat": "text", "to": ["canary@example.org"],
        "scheduledAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "callbackUrl": callback,
    }  # fmt: skip
    send = (await house.ask("post", "/v1/messages/send", user.key, 202, json=said))["messageId"]
    await house.ask("delete", f"/v1/messages/{send}", user.key, 200)
    return str(send)


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_delivery_is_tried_on_the_schedule_under_one_id(
    house: WebhookHouse, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waits are 5 s and 5 min, scaled; what Kafka and Postgres take comes on top of each."""
    async with receiving(answering(500, 404, 204)) as receiver:
        hook = await house.webhook(key, receiver.url)
        delivery = await house.test(key, hook)
        shown = await house.delivery(key, hook, delivery, ended)
    assert {call.id for call in receiver.calls} == {delivery}
    assert len({call.body for call in receiver.calls}) == 1
    assert [verified(call, hook["secret"])["type"] for call in receiver.calls] == ["webhook.test"] * 3
    assert [(one["status"], one["error"]) for one in shown["attempts"]] == [
        (500, "refused"),
        (404, "refused"),
        (204, None),
    ]
    waits = [later.at - earlier.at for earlier, later in pairwise(receiver.calls)]
    for wait, least in zip(waits, (0.025, 1.5), strict=True):
        assert least <= wait < least * 1.1 + 1.0
    assert (shown["status"], shown["nextAttemptAt"]) == ("delivered", None)


async def test_each_way_to_fail_is_on_record(house: WebhookHouse, key: str) -> None:
    async def hung(_: Receiver, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(SECONDS * 10)
        return web.Response()

    async with (
        receiving(hung) as slow,
        receiving(answering(302, headers={"Location": "http://127.0.0.1:1/"})) as moved,
        receiving() as gone,
    ):
        closed = gone.url.replace("127.0.0.1", "127.9.9.9")
        expected = {slow.url: (None, "timed_out"), moved.url: (302, "redirected"), closed: (None, "unreachable")}
        hooks = {url: await house.webhook(key, url) for url in expected}
        tests = {url: await house.test(key, hook) for url, hook in hooks.items()}
        for url, outcome in expected.items():
            shown = await house.delivery(key, hooks[url], tests[url], lambda one: one["attempts"])
            assert (shown["attempts"][0]["status"], shown["attempts"][0]["error"]) == outcome
            assert shown["status"] == "pending"
            assert shown["nextAttemptAt"]
        for hook in hooks.values():
            await house.ask("delete", f"/v1/webhooks/{hook['id']}", key, 204)


async def test_a_receiver_that_asks_to_be_left_alone_is(house: WebhookHouse, key: str) -> None:
    """Also by what else there is for it: that is put off, and doesn't count as an attempt."""
    answers = [429, 204]

    async def answer(receiver: Receiver, request: web.Request) -> web.StreamResponse:
        return web.Response(status=answers.pop(0) if answers else 204, headers={"Retry-After": "2"})

    async with receiving(answer) as receiver:
        hook = await house.webhook(key, receiver.url)
        first_one = await house.test(key, hook)
        waiting = await house.delivery(key, hook, first_one, lambda one: one["attempts"])
        others = [await house.test(key, hook) for _ in range(5)]
        due = datetime.fromisoformat(waiting["nextAttemptAt"]) - datetime.fromisoformat(waiting["attempts"][0]["at"])
        assert timedelta(seconds=1.9) < due < timedelta(seconds=2.5), "what is asked for is not scaled"
        calls = await receiver.has(7)
        assert calls[1].at - calls[0].at > 1.8
        for delivery, attempts in ((first_one, 2), *((one, 1) for one in others)):
            shown = await house.delivery(key, hook, delivery, ended)
            assert (shown["status"], len(shown["attempts"])) == ("delivered", attempts)


async def test_a_receiver_that_is_gone_is_asked_once_and_disabled(house: WebhookHouse, key: str) -> None:
    async with receiving(answering(410)) as receiver:
        hook = await house.webhook(key, receiver.url)
        one = f"/v1/webhooks/{hook['id']}"
        delivery = await house.test(key, hook)
        shown = await house.delivery(key, hook, delivery, ended)
        assert (shown["status"], len(shown["attempts"])) == ("failed", 1)
        await disabled(house, key, one, "gone")
        box = await house.http.mailbox(key)
        await house.http.deliver(box["address"], MAIL)
        for method, path in (("post", f"{one}/test"), ("post", f"{one}/deliveries/{delivery}/resend")):
            assert (await house.ask(method, path, key, 409))["code"] == "webhook_disabled"
        refused = await house.ask("post", f"{one}/resend", key, 409, json={"since": "2026-01-01T00:00:00Z"})
        assert refused["code"] == "webhook_disabled"
        assert len(receiver.calls) == 1
        receiver.answers = None
        again = await house.ask("post", f"{one}/enable", key, 200)
        assert (again["state"], again["disabledBecause"]) == ("active", None)
        await house.ask("post", f"{one}/deliveries/{delivery}/resend", key, 202)
        shown = await house.delivery(key, hook, delivery, ended)
        assert [attempt["status"] for attempt in shown["attempts"]] == [410, 204]
        assert [call.id for call in receiver.calls] == [delivery, delivery]
    (letter,) = await letters(house, hook["id"])
    assert letter["deadlettercause"] == "webhook_gone"


async def test_after_ten_attempts_it_is_given_up_kept_and_its_endpoint_disabled(
    house: WebhookHouse, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.callbacks.WAITS", (timedelta(seconds=5),) * (ATTEMPTS - 1))
    async with receiving(answering(500)) as receiver:
        hook = await house.webhook(key, receiver.url)
        delivery = await house.test(key, hook)
        shown = await house.delivery(key, hook, delivery, ended)
        await disabled(house, key, f"/v1/webhooks/{hook['id']}", "abandoned")
    assert (shown["status"], len(shown["attempts"]), len(receiver.calls)) == ("failed", ATTEMPTS, ATTEMPTS)
    (letter,) = await letters(house, hook["id"])
    assert letter["deadlettercause"] == "webhook_abandoned"


async def test_a_receiver_that_hangs_is_given_up_in_time_though_most_have_far_fewer_attempts(
    house: WebhookHouse, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.callbacks.LONGEST_TRIED", timedelta(seconds=3 * SECONDS) / SCALE)

    async def hung(_: Receiver, request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async with receiving(hung) as receiver:
        hook = await house.webhook(key, receiver.url)
        deliveries = [await house.test(key, hook) for _ in range(20)]
        await disabled(house, key, f"/v1/webhooks/{hook['id']}", "abandoned")
        for delivery in deliveries:
            shown = await house.delivery(key, hook, delivery, ended)
            assert shown["status"] == "failed"
            assert len(shown["attempts"]) < ATTEMPTS
            *made, last = [one["error"] for one in shown["attempts"]]
            assert {*made} <= {"timed_out"}
            assert last in ("timed_out", "expired", "endpoint_disabled")
    assert "webhook_abandoned" in {letter["deadlettercause"] for letter in await letters(house, hook["id"])}


async def test_both_secrets_sign_for_a_while_after_a_rotation(house: WebhookHouse, key: str) -> None:
    async with receiving() as receiver:
        hook = await house.webhook(key, receiver.url)
        rotated = await house.ask("post", f"/v1/webhooks/{hook['id']}/rotate", key, 200)
        delivery = await house.test(key, hook)
        await house.delivery(key, hook, delivery, ended)
        (call,) = receiver.calls
        assert verified(call, hook["secret"]) == verified(call, rotated["secret"])
        assert call.headers["webhook-signature"].count("v1,") == call.headers["webhook-signature"].count("v1a,") == 2
        await house.http.house.pool.execute(
            "update webhooks set old_until = array[now()] where endpoint = $1", hook["id"]
        )
        later = await house.test(key, hook)
        await house.delivery(key, hook, later, ended)
        assert receiver.calls[-1].headers["webhook-signature"].count("v1,") == 1


# ── once more ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_missed_since_a_time_is_sent_once_more(house: WebhookHouse, key: str) -> None:
    async with receiving() as receiver:
        hook = await house.webhook(key, receiver.url)
        path = f"/v1/webhooks/{hook['id']}/resend"
        early = await house.test(key, hook)
        shown = await house.delivery(key, hook, early, ended)
        since = (datetime.fromisoformat(shown["createdAt"]) + timedelta(milliseconds=1)).isoformat()
        late = [await house.test(key, hook) for _ in range(3)]
        for one in late:
            await house.delivery(key, hook, one, ended)
        assert await house.ask("post", path, key, 202, json={"since": since, "status": "failed"}) == {
            "count": 0,
            "next": None,
        }
        assert await house.ask("post", path, key, 202, json={"since": since}) == {"count": 3, "next": None}
        calls = await receiver.has(7)
        assert sorted(call.id for call in calls[4:]) == sorted(late)
        for one in late:
            shown = await house.delivery(key, hook, one, lambda found: len(found["attempts"]) == 2)
            assert shown["status"] == "delivered"
        for body, pointer in (
            ({}, "/since"),
            ({"since": "yesterday"}, "/since"),
            ({"since": "2026-01-01T00:00:00"}, "/since"),
            ({"since": "0001-01-01T00:00:00+14:00"}, "/since"),
            ({"since": "9999-12-31T23:59:59-14:00"}, "/since"),
            ({"since": since, "status": "lost"}, "/status"),
        ):
            answer = await house.ask("post", path, key, 400, json=body)
            assert [fault["pointer"] for fault in answer["errors"]] == [pointer]
        failed = await house.ask("get", f"/v1/webhooks/{hook['id']}/deliveries?status=failed", key, 200)
        assert failed["items"] == []
        pages = await house.ask("get", f"/v1/webhooks/{hook['id']}/deliveries?limit=3", key, 200)
        rest = await house.ask(
            "get", f"/v1/webhooks/{hook['id']}/deliveries?limit=3&cursor={pages['nextCursor']}", key, 200
        )
        assert [one["id"] for one in pages["items"] + rest["items"]] == [*reversed(late), early]


# ── one in trouble among many ─────────────────────────────────────────────────────────────────────────────────────────


async def test_receivers_in_trouble_hold_up_no_other(house: WebhookHouse, key: str) -> None:
    """E-03: receivers that hang, refuse and are gone, each with a heap of deliveries, and one that is well among them."""

    async def hung(_: Receiver, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with receiving(hung) as dead, receiving(answering(500)) as broken, receiving() as well:
        good = await house.webhook(key, well.url, events=["send.sent"])
        took = sorted([await _seconds(house, key, good, well) for _ in range(8)])
        bad = [await house.webhook(key, url, events=["send.sent"]) for url in (dead.url, broken.url) for _ in range(3)]
        await asyncio.gather(*[house.test(key, hook) for hook in bad for _ in range(20)])
        beside = sorted([await _seconds(house, key, good, well) for _ in range(8)])
        # One that waited for a call that hangs would take its second, and for all of them many.
        assert beside[len(beside) // 2] < 2 * took[len(took) // 2] + 0.8 * SECONDS
        assert beside[-1] < 4 * SECONDS
        page = generate_latest(house.http.house.metrics).decode()
        assert float(re.findall(r"^postledger_webhooks_put_off_total (\S+)", page, re.MULTILINE)[0]) > 0
        for hook in bad:
            await house.ask("delete", f"/v1/webhooks/{hook['id']}", key, 204)
        in_flight = max(_at_once(dead.calls), 1)
        assert in_flight <= 3 * webhook_deliver.IN_FLIGHT


async def test_a_callback_in_trouble_holds_up_no_other_of_its_account(
    house: WebhookHouse, account: tuple[str, str]
) -> None:
    """What a send brought along has no endpoint that could be spared: its host is, and no other host with it."""
    ada = await person(house.http, *account)
    await ada.connect()
    async with receiving(answering(429, headers={"Retry-After": "3600"})) as busy, receiving() as well:
        await _cancelled(house, ada, busy.url)
        await busy.has(1)
        await _cancelled(house, ada, well.url)
        await well.has(1, seconds=5)
        await _cancelled(house, ada, busy.url)
        await _cancelled(house, ada, well.url)
        await well.has(2, seconds=5)
        assert len(busy.calls) == 1


def _at_once(calls: list[Received]) -> int:
    """How many calls there were within the time that one of them takes, at the most."""
    return max((sum(one.at <= other.at < one.at + SECONDS * 0.9 for other in calls) for one in calls), default=0)


async def _seconds(house: WebhookHouse, key: str, hook: dict[str, Any], receiver: Receiver) -> float:
    """From asking for a test until it arrives."""
    loop, count = asyncio.get_running_loop(), len(receiver.calls)
    began = loop.time()
    await house.test(key, hook)
    return (await receiver.has(count + 1))[count].at - began
