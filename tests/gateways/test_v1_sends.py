"""Sends over real HTTP: asking for one, looking what has become of it, and changing one's mind."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from domain.connection_commands import RevokeConnection
from gateways.http.v1.sends import SEND_ID
from gateways.local_servers import Servers
from gateways.log.decisions import Asked, Decision, Unsettled
from schemas.send_message import MOST_IN_EVENT
from tests.support.asked_sends import SEND, AskedSends, Writer, asked_sends
from tests.support.connected import person
from tests.support.http_house import bearer, served

MEMBERS = {
    "id", "userId", "status", "code", "cause", "connectionId", "provider", "subject", "to", "cc", "bcc", "createdAt",
    "scheduledAt", "sentAt", "nextAttemptAt", "providerMessageId", "threadId", "attempts",
}  # fmt: skip
AT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AskedSends]:
    async with asked_sends(servers, "sends", tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
async def ada(house: AskedSends) -> Writer:
    return await house.writer()


def later(**more: float) -> str:
    return (datetime.now(UTC) + timedelta(**more)).isoformat()


# ── asking for one ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_mail_is_taken_goes_out_and_is_shown(ada: Writer) -> None:
    attachment = await ada.upload(b"Secret-canary", "Grüße.txt")
    status, body, headers = await ada.send(
        body="<p>It is <b>served</b>.</p>",
        bodyFormat="html",
        to=["Bob <bob@example.org>", "BOB <bob@EXAMPLE.org>", {"email": "grüße@bücher.example", "name": None}],
        cc={"email": "carol@example.org", "name": "Carol, of the board"},
        bcc="bob@example.org",
        replyTo="desk@example.org",
        headers={"X-Order": "4711"},
        attachments=[attachment, {"id": attachment}],
    )
    assert (status, set(body), body["status"]) == (202, {"messageId", "status"}, "queued")
    assert SEND_ID.fullmatch(body["messageId"])
    assert headers["Location"] == f"/v1/messages/{body['messageId']}"
    assert headers["Cache-Control"] == "no-store"
    found = await ada.get(body["messageId"], **{"X-After-Position": headers["X-Log-Position"]})
    assert set(found) == MEMBERS
    found = await ada.becomes(body["messageId"], "sent")
    (attempt,) = found.pop("attempts")
    (mail,) = [one for one in await ada.house.gmail.mails() if one.id == found["providerMessageId"]]
    assert len(ada.receipts()) == 1
    assert mail.recipients == ("bob@example.org", "grüße@xn--bcher-kva.example", "carol@example.org")
    assert found | {"createdAt": "", "sentAt": "", "threadId": ""} == {
        "id": body["messageId"],
        "userId": ada.id,
        "status": "sent",
        "code": None,
        "cause": None,
        "connectionId": ada.connection,
        "provider": "gmail",
        "subject": "Tea at four",
        "to": [{"email": "bob@example.org", "name": "Bob"}, {"email": "grüße@bücher.example", "name": None}],
        "cc": [{"email": "carol@example.org", "name": "Carol, of the board"}],
        "bcc": [],
        "createdAt": "",
        "scheduledAt": None,
        "sentAt": "",
        "nextAttemptAt": None,
        "providerMessageId": mail.id,
        "threadId": "",
    }
    assert AT.fullmatch(found["createdAt"])
    assert AT.fullmatch(found["sentAt"])
    assert attempt | {"startedAt": "", "endedAt": ""} == {
        "number": 1, "startedAt": "", "endedAt": "", "outcome": "accepted", "code": None, "cause": None, "detail": None,
        "counted": True, "refused": [],
    }  # fmt: skip
    await looks_like_it_was_asked(ada, body["messageId"], attachment)


async def looks_like_it_was_asked(ada: Writer, send: str, attachment: str) -> None:
    status, raw, headers = await ada.house.asked("GET", f"/v1/messages/{send}/raw", ada.key)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    (file,) = raw.pop("attachments")
    assert raw == {
        "subject": "Tea at four",
        "body": "<p>It is <b>served</b>.</p>",
        "bodyFormat": "html",
        "text": "It is served.",
        "headers": {"X-Order": "4711"},
    }
    assert {name: file[name] for name in ("id", "name", "size", "contentType")} == {
        "id": attachment, "name": "Grüße.txt", "size": 13, "contentType": "text/plain; charset=utf-8",
    }  # fmt: skip
    async with ada.house.http.http.get(ada.house.http.url + file["url"]) as answer:
        assert (answer.status, await answer.read()) == (200, b"Secret-canary")


async def test_a_large_body_is_in_a_blob_and_shown_all_the_same(ada: Writer) -> None:
    body = "".join(f"{number} bottles\n" for number in range(MOST_IN_EVENT // 12))
    send = await ada.taken(body=body)
    blob, message = await ada.house.http.services.pool.fetchrow("select blob, message from sends where send = $1", send)
    assert (blob, message) == (f"{ada.id}/{send}.message", None)
    _, raw, _ = await ada.house.asked("GET", f"/v1/messages/{send}/raw", ada.key)
    assert raw["body"] == raw["text"] == body
    _, listed, _ = await ada.house.asked("GET", "/v1/messages", ada.key)
    assert [one["subject"] for one in listed["items"]] == ["Tea at four"]
    await ada.becomes(send, "sent")


async def test_who_waits_is_answered_with_the_end(ada: Writer) -> None:
    status, body, headers = await ada.send(prefer="respond-async, wait=20")
    assert (status, headers["Preference-Applied"]) == (200, "wait=20")
    assert set(body) == MEMBERS
    assert body["status"] == "sent"
    assert body == await ada.get(body["id"])
    status, body, headers = await ada.send(scheduledAt=later(hours=1), prefer="wait=1")
    assert (status, body["status"]) == (202, "scheduled")
    assert "Preference-Applied" not in headers
    for odd in ("wait", "wait=-1", "wait=x", "wait=1e3", 'wait="0"', "return=minimal"):
        assert (await ada.send(prefer=odd, scheduledAt=later(hours=1)))[0] == 202


async def test_while_nobody_decides_an_operation_tells_what_has_come_of_it(ada: Writer) -> None:
    house, (_, strangers) = ada.house, await ada.house.http.account()
    services = house.http.services

    class Slow:
        """As it is where the tables are behind: the decision comes after the answer."""

        async def ask(self, asked: Asked, *, trace: Any = None) -> Decision:
            decision = await services.send_decisions.ask(asked, trace=trace)
            raise Unsettled(decision.command_id)

    slow: Any = Slow()
    async with (
        served(replace(services, send_decisions=slow, metrics=CollectorRegistry())) as url,
        served(replace(services, send_decisions=slow, metrics=CollectorRegistry())) as other,
    ):

        async def operation(status: str, **more: Any) -> dict[str, Any]:
            answered, body, headers = await house.asked("POST", SEND, ada.key, url=url, json=ada.mail(**more))
            assert (answered, body["status"]) == (202, "pending"), body
            assert headers["Location"] == f"/v1/operations/{body['operationId']}"
            answered, found, _ = await house.asked("GET", headers["Location"], ada.key)
            assert (answered, found["status"]) == (200, status)
            assert (await house.asked("GET", headers["Location"], strangers))[0] == 404
            return dict(body | found)

        done = await operation("done", idempotencyKey="a")
        assert done["location"] == f"/v1/messages/{done['messageId']}"
        assert (await ada.get(done["messageId"]))["id"] == done["messageId"]
        refused = await operation("refused", connectionId="con_" + "0" * 26)
        assert (refused["code"], refused["messageId"]) == ("no_active_connection", None)
        body = ada.mail(idempotencyKey="b")
        racing = [house.asked("POST", SEND, ada.key, url=one, json=body) for one in (url, other) * 4]
        pending = [
            headers["Location"] for _, body, headers in await asyncio.gather(*racing) if body["status"] == "pending"
        ]
        found = [(await house.asked("GET", where, ada.key))[1] for where in pending]
        assert len({one["operationId"] for one in found}) == len(pending) >= 2
        assert len({(one["status"], one["location"]) for one in found}) == 1, "all of them are the one that came first"
        bob = await house.writer()
        _, _, headers = await house.asked("POST", SEND, bob.key, url=url, json=bob.mail(scheduledAt=later(hours=1)))
        async with house.http.http.delete(f"{house.http.url}/v1/users/{bob.id}", headers=bearer(bob.key)):
            _, gone, _ = await house.asked("GET", headers["Location"], bob.key)
        assert (gone["status"], gone["code"], gone["messageId"]) == ("refused", "not_found", None)


# ── asking again ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_fifty_at_once_with_one_key_are_one_mail_and_fifty_same_answers(ada: Writer) -> None:
    answers = await asyncio.gather(*[ada.send(key="order-4711") for _ in range(50)])
    assert {status for status, _, _ in answers} == {202}
    assert len({(body["messageId"], body["status"], headers["X-Log-Position"]) for _, body, headers in answers}) == 1
    assert sum("Idempotency-Replayed" not in headers for _, _, headers in answers) == 1
    await ada.becomes(answers[0][1]["messageId"], "sent")
    assert (await ada.count(), len(ada.receipts())) == (1, 1)


async def test_a_repetition_is_answered_as_the_first_was_whatever_has_become_of_what_it_names(ada: Writer) -> None:
    attachment = await ada.upload()
    soon = later(seconds=2)
    said: dict[str, Any] = {"connectionId": ada.connection, "scheduledAt": soon, "attachments": [attachment]}
    first = await ada.send(key="a", **said)
    assert (first[0], first[1]["status"]) == (202, "scheduled")
    await ada.becomes(first[1]["messageId"], "sent")
    await ada.person.command(ada.connection, RevokeConnection(ada.connection, ada.id, "caller"))
    assert (await ada.house.asked("DELETE", f"/v1/attachments/{attachment}", ada.key))[0] in (200, 204)
    assert (await ada.send(**said))[0] == 400
    body = dict(reversed(ada.mail(**said).items())) | {"idempotencyKey": "a"}
    again = await ada.house.asked("POST", SEND, ada.key, json=body)
    assert (again[0], again[1]) == (202, first[1])
    assert again[2]["Idempotency-Replayed"] == "true"
    assert again[2]["X-Log-Position"] == first[2]["X-Log-Position"]
    other = await ada.send(key="a", **said, subject="Tea at five")
    assert (other[0], other[1]["code"]) == (409, "idempotency_key_reused")
    assert await ada.count() == 1


async def test_another_body_at_the_same_time_is_refused_by_the_decision(ada: Writer) -> None:
    answers = await asyncio.gather(*[ada.send(key="a", subject=f"Tea at {number}") for number in range(8)])
    assert sorted(status for status, _, _ in answers) == [202, *[409] * 7]
    assert await ada.count() == 1


async def test_a_key_is_one_user_s_and_the_same_in_header_and_body(house: AskedSends, ada: Writer) -> None:
    bob = await house.writer()
    sends = {await one.taken(key="same") for one in (ada, bob)}
    assert len(sends) == 2
    status, body, _ = await ada.send(key="a", idempotencyKey="b")
    assert (status, body["errors"][0]["pointer"]) == (400, "/idempotencyKey")
    assert (await ada.send(key='"a"', idempotencyKey="a"))[0] == 202
    assert await ada.taken(idempotencyKey="a") == await ada.taken(key="a")


# ── who may, and by what ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_another_account_s_is_not_there(house: AskedSends, ada: Writer) -> None:
    bob = await house.writer()
    send, attachment = await ada.taken(scheduledAt=later(hours=1)), await ada.upload()
    for user in (ada.id, "usr_" + "0" * 26, "ada"):
        assert (await bob.send(userId=user))[0] == 404
    said = [await bob.send(attachments=[one]) for one in (attachment, "att_" + "0" * 26, "x")]
    assert {(status, body["code"], body["detail"]) for status, body, _ in said} == {
        (400, "invalid_request", "The user has no such attachment: it was never there, was deleted, or has expired.")
    }
    said = [await bob.send(connectionId=one) for one in (ada.connection, "con_" + "0" * 26, "x")]
    assert {(status, body["code"], body["errors"][0]["pointer"]) for status, body, _ in said} == {
        (400, "no_active_connection", "/connectionId")
    }
    for method, where in (("GET", ""), ("GET", "/raw"), ("PATCH", ""), ("DELETE", ""), ("POST", "/retry")):
        body = {"json": {"scheduledAt": later(hours=2)}} if method == "PATCH" else {}
        for who in (send, "snd_" + "0" * 26, "snd_x", "send"):
            assert (await house.asked(method, f"/v1/messages/{who}{where}", bob.key, **body))[0] == 404, (method, where)
    listed = [await house.asked("GET", f"/v1/messages{query}", bob.key) for query in ("", f"?userId={ada.id}")]
    assert [body for _, body, _ in listed] == [{"items": [], "nextCursor": None}] * 2
    assert (await ada.get(send))["status"] == "scheduled"
    second = Writer(house, await person(house.http, ada.person.account, ada.key))
    assert (await second.send(attachments=[attachment]))[1]["code"] == "invalid_request"


async def test_a_deleted_user_s_mail_can_t_be_seen_or_sent(ada: Writer) -> None:
    send = await ada.taken(scheduledAt=later(hours=1))
    await ada.house.asked("DELETE", f"/v1/users/{ada.id}", ada.key)
    assert (await ada.send())[0] == 404
    assert (await ada.house.asked("GET", f"/v1/messages/{send}", ada.key))[0] == 404
    assert (await ada.house.asked("GET", "/v1/messages", ada.key))[1]["items"] == []


async def test_by_which_connection_it_goes_out(house: AskedSends, ada: Writer) -> None:
    first = ada.connection
    second = await ada.connect()
    named = await ada.taken(connectionId=first)
    usual = await ada.taken()
    preferred = await ada.taken(providerPreference="outlook")
    assert (await ada.becomes(named, "sent"))["connectionId"] == first
    assert (await ada.becomes(usual, "sent"))["connectionId"] == second
    assert (await ada.becomes(preferred, "sent"))["connectionId"] == second
    await ada.person.command(first, RevokeConnection(first, ada.id, "caller"))
    assert (await ada.send(connectionId=first))[1]["code"] == "no_active_connection"
    nobody = await house.writer(connected=False)
    status, body, _ = await nobody.send()
    assert (status, body["code"]) == (400, "no_active_connection")


# ── changing one's mind ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_scheduled_mail_is_moved_and_cancelled_until_it_starts(ada: Writer) -> None:
    house, send = ada.house, await ada.taken(scheduledAt=later(hours=1))
    where = f"/v1/messages/{send}"
    moved = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    status, body, _ = await house.asked("PATCH", where, ada.key, json={"scheduledAt": moved.isoformat()})
    assert (status, body["status"]) == (200, "scheduled")
    assert body["scheduledAt"] == body["nextAttemptAt"] == moved.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    for wrong in ({}, {"scheduledAt": None}, {"scheduledAt": later(minutes=-2)}, {"scheduledAt": later(days=400)}):
        assert (await house.asked("PATCH", where, ada.key, json=wrong))[0] == 400
    both = await house.asked("PATCH", where, ada.key, json={"scheduledAt": "tomorrow", "subject": "x"})
    assert {fault["pointer"] for fault in both[1]["errors"]} == {"/scheduledAt", "/subject"}
    for _ in range(2):
        status, body, headers = await house.asked("DELETE", where, ada.key)
        assert (status, body["status"], set(body)) == (200, "cancelled", MEMBERS)
        assert headers["X-Log-Position"].startswith("send.events-")
    later_on = await house.asked("PATCH", where, ada.key, json={"scheduledAt": moved.isoformat()})
    assert (later_on[0], later_on[1]["code"]) == (409, "too_late")
    assert (await house.asked("POST", where + "/retry", ada.key))[1]["code"] == "not_ended"
    assert not ada.receipts()


async def test_a_mail_that_is_moved_to_now_goes_out(ada: Writer) -> None:
    send = await ada.taken(scheduledAt=later(hours=1))
    moved = {"scheduledAt": later(seconds=-30)}
    assert (await ada.house.asked("PATCH", f"/v1/messages/{send}", ada.key, json=moved))[0] == 200
    await ada.becomes(send, "sent")


async def test_what_went_out_is_neither_cancelled_nor_sent_again(ada: Writer) -> None:
    send = await ada.taken()
    await ada.becomes(send, "sent")
    where = f"/v1/messages/{send}"
    codes = [
        (await ada.house.asked(method, path, ada.key))[:2]
        for method, path in (("DELETE", where), ("POST", where + "/retry"))
    ]
    assert [(status, body["code"]) for status, body in codes] == [(409, "too_late"), (409, "already_sent")]
    assert len(ada.receipts()) == 1


async def test_a_failed_mail_says_why_and_is_tried_again_by_request(ada: Writer) -> None:
    await ada.house.gmail.fail("drafts.create", user=ada.address, status=400)
    send = await ada.taken()
    failed = await ada.becomes(send, "failed")
    (attempt,) = failed["attempts"]
    assert failed["code"] == attempt["code"]
    assert failed["cause"] == attempt["cause"] == "The provider does not take this mail. Nothing went out."
    assert (attempt["outcome"], attempt["counted"]) == ("failed", True)
    assert attempt["detail"]
    _, listed, _ = await ada.house.asked("GET", f"/v1/messages?status=failed&userId={ada.id}", ada.key)
    assert [one["id"] for one in listed["items"]] == [send]
    where = f"/v1/messages/{send}/retry"
    status, body, headers = await ada.house.asked("POST", where, ada.key, headers={"Prefer": "wait=20"})
    assert (status, body["status"]) == (200, "sent")
    assert headers["Location"] == f"/v1/messages/{send}"
    assert [one["outcome"] for one in body["attempts"]] == ["failed", "accepted"]
    assert len(ada.receipts()) == 1


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_list_is_paged_by_cursor_and_by_offset(ada: Writer) -> None:
    house = ada.house
    sends = [await ada.taken(scheduledAt=later(hours=1), subject=f"Tea {number}") for number in range(5)]
    newest = list(reversed(sends))
    seen, query = [], "limit=2"
    while True:
        status, page, headers = await house.asked("GET", f"/v1/messages?{query}", ada.key)
        assert (status, bool(headers["ETag"])) == (200, True)
        seen += [one["id"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        query = f"limit=2&cursor={page['nextCursor']}"
    assert seen == newest
    same = await house.asked("GET", f"/v1/messages?{query}", ada.key, headers={"If-None-Match": headers["ETag"]})
    assert same[0] == 304

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await house.asked("GET", f"/v1/messages?{query}", ada.key))[1]["items"]]

    assert await ids("offset=3&limit=50") == newest[3:]
    assert await ids(f"userId={ada.id}&status=scheduled&limit=1") == newest[:1]
    assert await ids("status=sent") == []
    assert await ids("userId=nobody") == []
    for wrong in ("status=lost", "limit=0", "offset=-1", "cursor=x", "user_id=x", "status=sent&status=failed"):
        assert (await house.asked("GET", f"/v1/messages?{wrong}", ada.key))[0] == 400, wrong


async def test_reading_waits_for_what_was_written(ada: Writer) -> None:
    _, body, headers = await ada.send(scheduledAt=later(hours=1))
    seen = {"X-After-Position": headers["X-Log-Position"]}
    _, listed, _ = await ada.house.asked("GET", "/v1/messages", ada.key, headers=seen)
    assert [one["id"] for one in listed["items"]] == [body["messageId"]]
    beyond = {"X-After-Position": re.sub(r":\d+$", ":999999999", headers["X-Log-Position"])}
    assert (await ada.house.asked("GET", "/v1/messages", ada.key, headers=beyond))[1]["code"] == "outcome_unknown"


async def test_nothing_of_a_mail_is_in_the_tables_in_the_clear(ada: Writer) -> None:
    send = await ada.taken(
        subject="Secret-canary", body="Secret-canary", to=["secret-canary@example.org"], scheduledAt=later(hours=1),
        callbackUrl="https://hooks.example.org/secret-canary",
    )  # fmt: skip
    row = await ada.house.http.services.pool.fetchrow("select * from sends where send = $1", send)
    assert "canary" not in str(dict(row)).lower()
    assert row["callback"]
