"""How the Gmail fake fails when it is told to: before and after it has sent, in every form of an answer."""

import asyncio
import json
import time
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from tests.support.gmail.caller import ALICE, BOB, Caller, mail, raw
from tests.support.gmail.double import GmailFake
from tests.support.gmail.errors import KINDS, PAGES

SENDS = ["messages.send", "drafts.send"]


async def send(caller: Caller, method: str, content: bytes | None = None) -> tuple[int, bytes, Any]:
    content = content or mail()
    if method == "messages.send":
        return await caller.whole("POST", "messages/send", {"raw": raw(content)})
    return await caller.whole("POST", "drafts/send", {"id": await caller.draft(content)})


@pytest.mark.parametrize("method", SENDS)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_fault_of_the_server_says_nothing_of_the_mail(
    gmail: GmailFake, caller: Caller, method: str, status: int, when: str
) -> None:
    await gmail.fail(method, status=status, when=when)
    assert (await send(caller, method))[0] == status
    assert len(gmail.receipts()) == int(when == "after")
    assert (await send(caller, method))[0] == 200
    assert (await gmail.told())["injected"] == {method: 1}


@pytest.mark.parametrize("method", SENDS)
@pytest.mark.parametrize(("drop", "sent"), [("before", 0), ("after", 1), ("inside", 1)])
async def test_a_connection_ends_in_a_reset(
    gmail: GmailFake, caller: Caller, method: str, drop: str, sent: int
) -> None:
    await gmail.fail(method, drop=drop)
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)) as caught:
        await send(caller, method)
    assert drop == "inside" or isinstance(caught.value, ConnectionResetError) or "reset" in str(caught.value)
    assert len(gmail.receipts()) == sent
    assert (await gmail.told())["calls"][-1]["status"] == 0


async def test_it_is_a_reset_and_no_ordinary_end(gmail: GmailFake) -> None:
    await gmail.fail("getProfile", drop="before")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gmail.url.rpartition(":")[2]))
    writer.write(b"GET /gmail/v1/users/me/profile HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_who_stops_waiting_does_not_stop_the_mail(gmail: GmailFake, caller: Caller) -> None:
    draft = await caller.draft(mail())
    await gmail.fail("drafts.send", delay=1.5)
    with pytest.raises(TimeoutError):
        await caller.ask("POST", "drafts/send", {"id": draft}, timeout=aiohttp.ClientTimeout(0.1))
    assert (await caller.ask("GET", f"drafts/{draft}"))[0] == 200
    assert gmail.receipts() == []
    await until_sent(gmail, 1)
    assert (await caller.ask("GET", f"drafts/{draft}"))[0] == 404
    await gmail.fail("messages.send", delayAfter=60)
    with pytest.raises(TimeoutError):
        await caller.ask("POST", "messages/send", {"raw": raw(mail())}, timeout=aiohttp.ClientTimeout(0.2))
    await until_sent(gmail, 2)


async def until_sent(gmail: GmailFake, number: int) -> None:
    async with asyncio.timeout(10):
        while len(gmail.receipts()) < number:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [*KINDS, *PAGES])
async def test_each_kind_of_refusal(gmail: GmailFake, caller: Caller, kind: str) -> None:
    await gmail.fail("messages.send", kind=kind)
    status, body, headers = await send(caller, "messages.send")
    assert gmail.receipts() == []
    if kind in PAGES:
        assert (status, headers["Content-Type"]) == (PAGES[kind], "text/html; charset=UTF-8")
        return
    error = json.loads(body)["error"]
    assert (status, error["code"], error.get("status", "")) == (KINDS[kind][0], KINDS[kind][0], KINDS[kind][1])
    assert (error["errors"][0]["reason"], error["errors"][0]["domain"]) == KINDS[kind][2:4]
    assert "{" not in error["message"]
    assert ("WWW-Authenticate" in headers) is (status == 401 or kind == "insufficientPermissions")


async def test_every_form_of_retry_after(gmail: GmailFake, caller: Caller) -> None:
    date = format_datetime(parsedate_to_datetime("Sun, 06 Nov 2033 08:49:37 GMT"), usegmt=True)
    for form in (3, 0, -1, 1_000_000_000, "1e9", date, "soon", ""):
        await gmail.fail("messages.send", kind="tooManyRequests", retryAfter=form)
        status, _, headers = await send(caller, "messages.send")
        assert (status, headers["Retry-After"]) == (429, str(form))
    await gmail.fail("messages.send", kind="mailSending", until=7200)
    _, body, headers = await send(caller, "messages.send")
    assert "Retry-After" not in headers
    assert json.loads(body)["error"]["message"].startswith("User-rate limit exceeded.  Retry after 20")


async def test_who_is_meant_and_how_often(gmail: GmailFake, caller: Caller) -> None:
    bob = Caller(caller.http, "bob")
    await gmail.fail("*.send", user=BOB, status=503, times=2)
    statuses = [(await send(one, method))[0] for one in (caller, bob) for method in [*SENDS, "messages.send"]]
    assert statuses == [200, 200, 200, 503, 503, 200]
    await gmail.fail("messages.send", containing="Marker: m2", status=500)
    await gmail.fail("drafts.send", containing="Marker: m2", status=500)
    for method in SENDS:
        for marker, status in (("m1", 200), ("m2", 500), ("m2", 200)):
            assert (await send(caller, method, mail(head=f"X-Marker: {marker}")))[0] == status
    await gmail.fail("getProfile", skip=1, status=401)
    assert [(await caller.ask("GET", "profile"))[0] for _ in range(3)] == [200, 401, 200]
    assert {one["user"] for one in (await gmail.told())["calls"]} == {ALICE, BOB}


async def test_answers_that_are_no_answers(gmail: GmailFake, caller: Caller) -> None:
    await gmail.fail("messages.send", truncate=10)
    status, body, _ = await send(caller, "messages.send")
    assert (status, len(body)) == (200, 10)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(body)
    await gmail.fail("messages.send", status=200, body={"surprise": []}, when="after")
    assert (await send(caller, "messages.send"))[:2] == (200, b'{"surprise": []}')
    await gmail.fail("messages.send", status=200, body="<html>", headers={"X-More": "1"})
    status, body, headers = await send(caller, "messages.send")
    assert (status, body, headers["X-More"]) == (200, b"<html>", "1")
    await gmail.fail("messages.send", status=307, headers={"Location": "/gmail/v1/users/me/messages/send"})
    assert (await send(caller, "messages.send"))[0] == 307
    assert len(gmail.receipts()) == 2


async def test_answers_without_an_end(gmail: GmailFake, caller: Caller) -> None:
    await gmail.fail("messages.send", drip=100)
    began = time.monotonic()
    status, body, _ = await send(caller, "messages.send")
    assert (status, json.loads(body)["labelIds"]) == (200, ["SENT"])
    assert time.monotonic() - began > len(body) / 100
    await gmail.fail("messages.send", huge=1 << 30)
    await gmail.fail("messages.send", bomb=1 << 30)
    await gmail.fail("messages.send", endlessHeaders=0.01)
    headers = {"Authorization": "Bearer alice"}
    for encoding in (None, "gzip"):
        async with caller.http.post(
            "/gmail/v1/users/me/messages/send", json={"raw": raw(mail())}, headers=headers
        ) as answer:
            assert answer.headers.get("Content-Encoding") == encoding
            assert len(await answer.content.readexactly(1 << 20)) == 1 << 20
            answer.close()
    with pytest.raises((TimeoutError, aiohttp.ClientError)):
        await caller.ask("POST", "messages/send", {"raw": raw(mail())}, timeout=aiohttp.ClientTimeout(0.3))
    assert len(gmail.receipts()) == 1
    assert (await send(caller, "messages.send"))[0] == 200


async def test_one_who_hangs_holds_up_no_other(gmail: GmailFake, caller: Caller) -> None:
    await gmail.fail(user=BOB, delay=60)
    hung = asyncio.create_task(Caller(caller.http, "bob").ask("GET", "profile"))
    while not (await gmail.told())["open"]:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    assert (await send(caller, "messages.send"))[0] == 200
    assert time.monotonic() - began < 20
    hung.cancel()
