"""The Gmail fake, driven by a small client: what a caller may rely on, and what it may not."""

import asyncio
import base64
import hashlib
import json
import os
import time
from pathlib import Path

import aiohttp
import pytest

from tests.support.gmail.caller import ALICE, BOB, TOKENS, Caller, mail, raw
from tests.support.gmail.double import COMPOSE, SEND, GmailFake
from tests.support.gmail.methods import KIND
from tests.support.gmail.receipts import ReceiptLog
from tests.support.oauth_server.server import Client, OAuthServer


async def test_a_draft_is_sent_once_and_is_no_draft_afterwards(gmail: GmailFake, caller: Caller) -> None:
    content = mail(head="X-Postledger-Marker: m1\nBcc: dave@example.test")
    draft = await caller.draft(content)
    _, before = await caller.ask("GET", f"drafts/{draft}", params={"format": "raw"})
    assert base64.urlsafe_b64decode(before["message"]["raw"]) == content
    assert before["message"]["labelIds"] == ["DRAFT"]
    status, sent = await caller.ask("POST", "drafts/send", {"id": draft})
    assert (status, sent["labelIds"]) == (200, ["SENT"])
    assert sent["id"] != before["message"]["id"]
    for verb, path, said in (("GET", f"drafts/{draft}", None), ("POST", "drafts/send", {"id": draft})):
        status, told = await caller.ask(verb, path, said)
        assert (status, told["error"]["status"], told["error"]["errors"][0]["reason"]) == (404, "NOT_FOUND", "notFound")
    (receipt,) = gmail.receipts()
    assert (receipt.id, receipt.draft_id, receipt.marker, receipt.user) == (sent["id"], draft, "m1", ALICE)
    assert receipt.recipients == ("carol@example.test", "dave@example.test")
    assert receipt.sha256 == hashlib.sha256(content).hexdigest()
    assert (receipt.method, receipt.envelope_from, receipt.size) == ("drafts.send", ALICE, len(content))


async def test_of_many_who_send_one_draft_one_does(gmail: GmailFake, caller: Caller) -> None:
    await gmail.set(concurrentPerUser=None)
    draft = await caller.draft(mail())
    answers = await asyncio.gather(*(caller.ask("POST", "drafts/send", {"id": draft}) for _ in range(20)))
    assert sorted(status for status, _ in answers) == [200] + [404] * 19
    assert len(gmail.receipts()) == 1


async def test_the_message_id_is_another_and_bcc_stays_at_home(gmail: GmailFake, caller: Caller) -> None:
    content = mail(to=f"{BOB}, carol@example.test", head="X-Mine: kept\nBcc: dave@example.test")
    _, sent = await caller.ask("POST", "messages/send", {"raw": raw(content)})
    (one,) = await gmail.mails()
    (receipt,) = gmail.receipts()
    assert one.given == content
    assert b"Bcc: dave@example.test\r\n" in one.sent
    assert b"dave" not in one.delivered
    assert receipt.message_id_before == "<own@postledger.test>"
    assert receipt.message_id_after.endswith("@mail.gmail.com>")
    params = [("format", "metadata"), ("metadataHeaders", "message-id"), ("metadataHeaders", "X-Mine")]
    _, told = await caller.ask("GET", f"messages/{sent['id']}", params=params)
    named = {header["name"]: header["value"] for header in told["payload"]["headers"]}
    assert named == {"Message-ID": receipt.message_id_after, "X-Mine": "kept"}
    assert int(told["historyId"]) > 2**64
    await gmail.set(messageId="kept")
    await caller.ask("POST", "messages/send", {"raw": raw(content)})
    assert gmail.receipts()[1].message_id_after == "<own@postledger.test>"
    assert len((await Caller(caller.http, "bob").ask("GET", "labels/INBOX"))[1]) > 3


async def test_what_was_sent_is_found_some_time_later(gmail: GmailFake, caller: Caller) -> None:
    await gmail.set(indexLag=60, messageId="kept")
    _, sent = await caller.ask("POST", "messages/send", {"raw": raw(mail())})
    query = {"q": "in:sent rfc822msgid:<own@postledger.test>"}
    assert (await caller.ask("GET", "messages", params=query))[1] == {"resultSizeEstimate": 0}
    assert (await caller.ask("GET", f"messages/{sent['id']}"))[0] == 200
    await gmail.set(indexLag=0)
    _, found = await caller.ask("GET", "messages", params=query)
    assert [one["id"] for one in found["messages"]] == [sent["id"]]
    for query, number in {
        "in:drafts": 0,
        "subject:hello": 1,
        "X-Mine": 0,
        "-in:sent": 0,
        "after:1": 1,
        "text": 1,
    }.items():
        _, found = await caller.ask("GET", "messages", params={"q": query})
        assert len(found.get("messages", [])) == number, query


async def test_lists_have_pages(gmail: GmailFake, caller: Caller) -> None:
    await gmail.set(indexLag=0)
    drafts = [await caller.draft(mail(subject=f"{n}")) for n in range(5)]
    found, more = [], {}
    while more is not None:
        _, told = await caller.ask("GET", "drafts", params={"maxResults": "2", **more})
        found += [one["id"] for one in told["drafts"]]
        more = {"pageToken": told["nextPageToken"]} if "nextPageToken" in told else None
    assert found == drafts[::-1]


async def test_drafts_change_and_go(gmail: GmailFake, caller: Caller) -> None:
    draft = await caller.draft(mail(subject="first"))
    status, told = await caller.ask("PUT", f"drafts/{draft}", {"message": {"raw": raw(mail(subject="second"))}})
    assert (status, told["id"]) == (200, draft)
    assert (await caller.ask("DELETE", f"drafts/{draft}")) == (204, None)
    assert (await caller.ask("DELETE", f"drafts/{draft}"))[0] == 404
    assert (await caller.ask("PUT", f"drafts/{draft}", {"message": {"raw": raw(mail())}}))[0] == 404
    draft = await caller.draft(mail(subject="third"))
    await caller.ask("POST", "drafts/send", {"id": draft, "message": {"raw": raw(mail(subject="fourth"))}})
    assert b"Subject: fourth" in (await gmail.mails())[0].sent
    await gmail.set(draftLag=60)
    assert (await caller.ask("GET", f"drafts/{draft}"))[0] == 200
    assert (await caller.ask("POST", "drafts/send", {"id": draft}))[0] == 404
    assert len(gmail.receipts()) == 1


async def test_a_reply_stays_in_its_thread_only_if_its_headers_say_so(gmail: GmailFake, caller: Caller) -> None:
    _, first = await caller.ask("POST", "messages/send", {"raw": raw(mail(subject="plan"))})
    known = gmail.receipts()[0].message_id_after
    for head, subject, same in ((f"References: {known}", "Re: plan", True), ("", "plan", False),
                                (f"In-Reply-To: {known}", "another", False)):  # fmt: skip
        said = {"raw": raw(mail(head=head, subject=subject)), "threadId": first["threadId"]}
        _, told = await caller.ask("POST", "messages/send", said)
        assert (told["threadId"] == first["threadId"]) is same, (head, subject)
    _, thread = await caller.ask("GET", f"threads/{first['threadId']}", params={"format": "minimal"})
    assert len(thread["messages"]) == 2
    status, _ = await caller.ask("POST", "messages/send", {"raw": raw(mail()), "threadId": "0123456789abcdef"})
    assert status == 404


async def test_each_scope_opens_what_it_opens_at_google(gmail: GmailFake, caller: Caller) -> None:
    draft = await caller.draft(mail())
    _, message = await caller.ask("POST", "messages/send", {"raw": raw(mail())})
    new, one = {"message": {"raw": raw(mail())}}, f"messages/{message['id']}"
    for token, allowed in {
        "send": {"messages/send"},
        "compose": {"messages/send", "drafts", "draft", "profile"},
        "modify": {"messages/send", "drafts", "draft", "profile", "search", "raw", "metadata"},
        "readonly": {"draft", "profile", "search", "raw", "metadata"},
        "metadata": {"profile", "metadata"},
    }.items():
        as_token = Caller(caller.http, token)
        answers = {
            "messages/send": await as_token.ask("POST", "messages/send", {"raw": raw(mail())}),
            "drafts": await as_token.ask("POST", "drafts", new),
            "draft": await as_token.ask("GET", f"drafts/{draft}"),
            "profile": await as_token.ask("GET", "profile"),
            "search": await as_token.ask("GET", "messages", params={"q": "in:sent"}),
            "raw": await as_token.ask("GET", one, params={"format": "raw"}),
            "metadata": await as_token.ask("GET", one, params={"format": "metadata"}),
        }
        assert {name for name, (status, _) in answers.items() if status == 200} == allowed, token
        assert {status for status, _ in answers.values()} <= {200, 403}
    assert answers["drafts"][1]["error"]["errors"][0]["reason"] == "insufficientPermissions"


async def test_no_token_no_entry(gmail: GmailFake, caller: Caller) -> None:
    for token, reason in ((None, "required"), ("unknown", "authError")):
        status, body, headers = await Caller(caller.http, token).whole("GET", "profile")
        error = json.loads(body)["error"]
        assert (status, error["code"], error["status"]) == (401, 401, "UNAUTHENTICATED")
        assert (error["errors"][0]["reason"], error["errors"][0]["location"]) == (reason, "Authorization")
        assert headers["WWW-Authenticate"].startswith("Bearer ")
    await gmail.token("unknown", BOB, SEND)
    assert (await Caller(caller.http, "unknown").ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 200
    await gmail.token("unknown")
    assert (await Caller(caller.http, "unknown").ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 401
    async with caller.http.get(f"/gmail/v1/users/{BOB}/profile", headers={"Authorization": "Bearer alice"}) as answer:
        assert (answer.status, (await answer.json())["error"]["message"]) == (403, f"Delegation denied for {ALICE}")


async def test_tokens_are_those_of_the_authorization_server_while_they_live() -> None:
    async with (
        OAuthServer(Client("google", "secret", mode="google")) as oauth,
        GmailFake(oauth=oauth.issuer) as gmail,
        aiohttp.ClientSession(gmail.url) as http,
    ):
        (alice,) = await oauth.seed(client="google", scope=f"openid {COMPOSE}", logins=[ALICE])
        (bob,) = await oauth.seed(client="google", scope=f"email {SEND}", logins=[BOB])
        draft = await Caller(http, alice.access_token).draft(mail())
        assert (await Caller(http, bob.access_token).ask("POST", "drafts", {"message": {"raw": raw(mail())}}))[0] == 403
        assert (await Caller(http, bob.access_token).ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 200
        assert (await Caller(http, alice.refresh_token).ask("GET", "profile"))[0] == 401
        assert (await Caller(http, alice.access_token).ask("GET", "profile"))[1]["emailAddress"] == ALICE
        await oauth.revoke(ALICE)
        assert (await Caller(http, alice.access_token).ask("POST", "drafts/send", {"id": draft}))[0] == 401
        assert [one.user for one in gmail.receipts()] == [BOB]


async def test_receipts_outlive_the_fake(gmail: GmailFake) -> None:
    async with GmailFake(TOKENS) as own, aiohttp.ClientSession(own.url) as http:
        began = time.time()
        assert (await Caller(http).ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 200
        await own.kill()
        with own.receipts_path.open("ab") as file:
            file.write(b'{"id": "torn')
        (receipt,) = own.receipts()
        assert began <= receipt.time <= time.time()
    assert not own.receipts_path.exists()


async def test_what_was_answered_before_a_kill_is_in_the_receipts() -> None:
    async with GmailFake(TOKENS, **KIND) as own, aiohttp.ClientSession(own.url) as http:
        answered: list[str] = []

        async def send() -> None:
            while True:
                answered.append((await Caller(http).ask("POST", "messages/send", {"raw": raw(mail())}))[1]["id"])

        senders = [asyncio.create_task(send()) for _ in range(8)]
        while len(answered) < 50:
            await asyncio.sleep(0.01)
        await own.kill()
        await asyncio.gather(*senders, return_exceptions=True)
        receipts = [one.id for one in own.receipts()]
        assert set(answered) <= set(receipts)
        assert len(receipts) == len(set(receipts)) <= len(answered) + len(senders)


async def test_a_receipt_is_on_the_disk_before_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    file = tmp_path / "receipts.jsonl"
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(file.read_bytes()))
    log = ReceiptLog(file)

    async def sent(number: int) -> None:
        log.append({"id": number})
        await log.synced()
        assert f'"id": {number}}}'.encode() in synced[-1]

    await asyncio.gather(*map(sent, range(100)))
    assert 1 <= len(synced) < 10


async def test_a_reset_forgets_and_what_is_open_does_nothing_more(gmail: GmailFake, caller: Caller) -> None:
    await gmail.set(messageId="kept")
    await gmail.fail("messages.send", delay=1)
    open_call = asyncio.create_task(caller.ask("POST", "messages/send", {"raw": raw(mail())}))
    while not (await gmail.told())["requests"]:
        await asyncio.sleep(0.01)
    await gmail.reset()
    assert (await open_call)[0] == 503
    told = await gmail.told()
    assert (told["requests"], told["sent"], gmail.receipts()) == ({}, 0, [])
    with pytest.raises(ValueError, match="unknown settings"):
        await gmail.set(mesageId="kept")
    with pytest.raises(ValueError, match="unknown words of a failure"):
        await gmail.fail(stauts=500)
    with pytest.raises(ValueError, match="unknown kind"):
        await gmail.fail(kind="bad")


async def test_a_mail_can_come_from_somewhere_else(gmail: GmailFake, caller: Caller) -> None:
    name = await gmail.put(ALICE, mail(to=ALICE))
    _, told = await caller.ask("GET", f"messages/{name}")
    assert told["labelIds"] == ["UNREAD", "INBOX"]
    assert base64.urlsafe_b64decode(told["payload"]["body"]["data"]) == b"text\r\n"
