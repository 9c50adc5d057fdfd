"""The Graph fake's mailboxes: ids, drafts, searches, attachments, and what goes out, asked by a small client of ours."""

import base64
import email
import hashlib
import os
from collections.abc import AsyncIterator
from email.policy import SMTP
from typing import Any

import aiohttp
import pytest

from tests.support.graph.caller import ALICE, BOB, TOKENS, Caller, attachment, message, mime, person
from tests.support.graph.double import GraphFake
from tests.support.waiting import until

ID = "<m-1@postledger.test>"
PIECE = 320 * 1024


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[GraphFake]:
    async with GraphFake(TOKENS) as graph:
        yield graph


@pytest.fixture
async def graph(running: GraphFake) -> GraphFake:
    await running.reset()
    return running


@pytest.fixture
async def caller(graph: GraphFake) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as http:
        yield Caller(http, graph)


async def in_sent_items(caller: Caller, draft: str) -> dict[str, Any]:
    async def arrived() -> bool:
        return not (await caller.get(draft)).json["isDraft"]

    await until(arrived)
    return (await caller.get(draft)).json


def content(receipt: dict[str, Any]) -> Any:
    return email.message_from_bytes(base64.b64decode(receipt["content"]), policy=SMTP)


async def test_a_draft_is_sent_under_the_id_that_stays(graph: GraphFake, caller: Caller) -> None:
    await graph.set(sentLag=1.5)
    made = await caller.ask("POST", "/me/messages", message(internetMessageId=ID))
    assert (made.status, made.json["isDraft"], made.json["internetMessageId"]) == (201, True, ID)
    assert made.headers["preference-applied"] == 'IdType="ImmutableId"'
    sent = await caller.send(made.json["id"])
    assert (sent.status, sent.headers["content-length"], sent.body) == (202, "0", b"")
    on_its_way = await caller.get(made.json["id"])
    assert on_its_way.json["isDraft"], "the copy lags"
    assert on_its_way.json["parentFolderId"] == (await caller.ask("GET", "/me/mailFolders/outbox")).json["id"]
    arrived = await in_sent_items(caller, made.json["id"])
    assert arrived["internetMessageId"] == ID
    assert arrived["from"]["emailAddress"]["address"] == ALICE
    assert arrived["parentFolderId"] == (await caller.ask("GET", "/me/mailFolders/sentitems")).json["id"]
    (receipt,) = graph.receipts()
    assert (receipt["id"], receipt["to"], receipt["how"]) == (made.json["id"], [BOB], "send")
    again = await caller.send(made.json["id"])
    assert (again.status, again.code) == (404, "ErrorItemNotFound")
    assert len(graph.receipts()) == 1


async def test_other_ids_are_lost_when_a_message_moves(graph: GraphFake, caller: Caller) -> None:
    draft = await caller.draft(immutable=False)
    stays = (await caller.get(draft)).json["id"]
    assert stays != draft
    assert (await caller.get(stays, immutable=False)).status == 404, "nobody prefers immutable ids here"
    moved = await caller.ask("POST", f"/me/messages/{draft}/move", {"DestinationId": "inbox"}, immutable=False)
    assert moved.status == 201
    assert moved.json["id"] not in {draft, stays}
    assert (await caller.get(draft, immutable=False)).code == "ErrorItemNotFound"
    assert (await caller.send(moved.json["id"], immutable=False)).status == 202
    assert (await caller.get(moved.json["id"], immutable=False)).status == 404
    assert (await in_sent_items(caller, stays))["id"] == stays


@pytest.mark.parametrize(("shows", "seen", "again"), [("missing", 404, 404), ("draft", 200, 202)])
async def test_the_lag_can_be_worse(graph: GraphFake, caller: Caller, shows: str, seen: int, again: int) -> None:
    await graph.set(lagShows=shows, sentLag=60)
    draft = await caller.draft(internetMessageId=ID)
    assert (await caller.send(draft)).status == 202
    assert (await caller.get(draft)).status == seen
    found = await caller.ask("GET", f"/me/messages?$filter=internetMessageId eq '{ID}'")
    assert len(found.json["value"]) == (seen == 200)
    assert (await caller.send(draft)).status == again
    assert len(graph.receipts()) == (2 if again == 202 else 1)


async def test_a_search_finds_the_message_id_and_the_mark(caller: Caller) -> None:
    mark = {"id": "String {00020329-0000-0000-C000-000000000046} Name X-Mark", "value": "it's"}
    wanted = await caller.draft(internetMessageId="<it's@x.test>", singleValueExtendedProperties=[mark])
    for number in range(4):
        await caller.draft(subject=f"other {number}")
    query = "$filter=internetMessageId eq '<it''s@x.test>'&$select=id,isDraft,internetMessageId"
    found = (await caller.ask("GET", f"/me/messages?{query}")).json
    assert [one["id"] for one in found["value"]] == [wanted]
    assert found["value"][0].keys() == {"@odata.etag", "id", "isDraft", "internetMessageId"}
    condition = f"singleValueExtendedProperties/any(ep: ep/id eq '{mark['id']}' and ep/value eq 'it''s')"
    found = (await caller.ask("GET", f"/me/messages?$filter={condition}")).json
    assert [one["id"] for one in found["value"]] == [wanted]
    assert (await caller.ask("GET", "/me/messages?$filter=size gt 3")).code == "BadRequest"


async def test_pages_follow_one_another(caller: Caller) -> None:
    made = {await caller.draft(subject=f"n {number}") for number in range(5)}
    found, url, pages = set(), "/me/mailFolders/drafts/messages?$top=2&$select=subject", 0
    while url:
        told = await caller.ask("GET", url)
        found |= {one["id"] for one in told.json["value"]}
        url, pages = told.json.get("@odata.nextLink"), pages + 1
    assert (found, pages) == (made, 3)


async def test_drafts_change_but_not_their_message_id(graph: GraphFake, caller: Caller) -> None:
    draft = await caller.draft()
    generated = (await caller.get(draft)).json["internetMessageId"]
    changed = await caller.ask(
        "PATCH", f"/me/messages/{draft}", {"subject": "other", "ccRecipients": [person("c@x.test")]}
    )
    assert (changed.status, changed.json["subject"]) == (200, "other")
    refused = await caller.ask("PATCH", f"/me/messages/{draft}", {"internetMessageId": ID})
    assert (refused.status, refused.code) == (400, "ErrorInvalidPropertySet")
    assert (await caller.ask("PATCH", f"/me/messages/{draft}", {"colour": 1})).code == "RequestBodyRead"
    await caller.send(draft)
    await in_sent_items(caller, draft)
    assert (await caller.ask("PATCH", f"/me/messages/{draft}", {"subject": "late"})).code == "ErrorInvalidPropertySet"
    assert (await caller.ask("DELETE", f"/me/messages/{draft}")).status == 204
    assert (await caller.get(draft)).status == 404
    (receipt,) = graph.receipts()
    assert (receipt["subject"], receipt["cc"], receipt["internetMessageId"]) == ("other", ["c@x.test"], generated)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "InvalidInternetMessageHeaderCollection"),
        ([{"name": f"X-{n}", "value": "1"} for n in range(6)], "InvalidInternetMessageHeaderCollection"),
        ([{"name": "References", "value": "<a@b>"}], "InvalidInternetMessageHeader"),
    ],
)
async def test_only_five_headers_of_ones_own(caller: Caller, headers: list[Any], code: str) -> None:
    told = await caller.ask("POST", "/me/messages", message(internetMessageHeaders=headers))
    assert (told.status, told.code) == (400, code)


async def test_send_mail_as_json_in_whatever_letters(graph: GraphFake, caller: Caller) -> None:
    for names in (("message", "saveToSentItems"), ("Message", "SaveToSentItems")):
        words = {names[0]: message(internetMessageId=ID), names[1]: False}
        told = await caller.ask("POST", "/me/sendMail", words)
        assert (told.status, told.headers["content-length"]) == (202, "0")
    assert {one["internetMessageId"] == ID for one in graph.receipts()} == {False}, "it is the draft's alone"
    await graph.set(sentLag=0)
    assert (
        await caller.ask("POST", "/me/sendMail", {"message": message(bccRecipients=[person("d@x.test")])})
    ).status == 202
    receipt = graph.receipts()[2]
    assert (receipt["bcc"], content(receipt)["Bcc"]) == (["d@x.test"], None)
    assert content(receipt).get_body(("plain",)).get_content().strip() == "Hello you"


@pytest.mark.parametrize("by", ["sendMail", "draft"])
async def test_mime_goes_out_as_it_came(graph: GraphFake, caller: Caller, by: str) -> None:
    given = mime(Message_ID=ID, X_Mark="7", References="<r@x>", From=ALICE, Date="Sun, 22 Nov 2026 12:00:00 +0000")
    path = "/me/sendMail" if by == "sendMail" else "/me/messages"
    told = await caller.ask("POST", path, given, Content_Type="text/plain")
    if by == "draft":
        assert (told.status, told.json["internetMessageId"], told.json["subject"]) == (201, ID, "hëllo")
        raw = await caller.ask("GET", f"/me/messages/{told.json['id']}/$value")
        assert (raw.headers["content-type"], raw.body) == ("text/plain", base64.b64decode(given))
        told = await caller.send(told.json["id"])
    assert (told.status, told.body) == (202, b"")
    (receipt,) = graph.receipts()
    mail = content(receipt)
    assert (mail["Message-ID"], mail["X-Mark"], mail["References"]) == (ID, "7", "<r@x>")
    assert ["X-Mark", "7"] in receipt["headers"]
    assert [part.get_content_type() for part in mail.walk() if not part.is_multipart()] == [
        "text/plain",
        "text/html",
        "image/png",
    ]
    assert receipt["attachments"][0]["name"] == "ünd.png"


async def test_mime_must_be_base64(graph: GraphFake, caller: Caller) -> None:
    for path in ("/me/sendMail", "/me/messages"):
        told = await caller.ask("POST", path, b"!!! no", Content_Type="text/plain")
        assert (told.status, told.code) == (400, "ErrorMimeContentInvalidBase64String")
    assert graph.receipts() == []


async def test_small_attachments_are_posted(graph: GraphFake, caller: Caller) -> None:
    draft = await caller.draft(attachments=[attachment(b"first", "one.txt")])
    path = f"/me/messages/{draft}/attachments"
    made = await caller.ask("POST", path, attachment(b"x" * 3_000_000, "two.bin"))
    assert (made.status, made.json["size"]) == (201, 3_000_000)
    assert [one["name"] for one in (await caller.ask("GET", path)).json["value"]] == ["one.txt", "two.bin"]
    first = (await caller.ask("GET", path)).json["value"][0]["id"]
    assert (await caller.ask("GET", f"{path}/{first}/$value")).body == b"first"
    large = await caller.ask("POST", path, attachment(b"x" * (3 << 20)))
    assert large.status == 413
    assert (await caller.ask("DELETE", f"{path}/{first}")).status == 204
    await caller.send(draft)
    (receipt,) = graph.receipts()
    digest = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert [(one["name"], one["sha256"]) for one in receipt["attachments"]] == [("two.bin", digest)]


async def session(caller: Caller, draft: str, size: int) -> Any:
    item = {"attachmentType": "file", "name": "large.bin", "size": size, "contentType": "application/x-large"}
    path = f"/me/messages/{draft}/attachments/createUploadSession"
    return await caller.ask("POST", path, {"AttachmentItem": item})


async def test_large_attachments_come_in_pieces(graph: GraphFake, caller: Caller) -> None:
    draft, large = await caller.draft(), os.urandom(5 << 20)
    made = await session(caller, draft, len(large))
    url = made.json["uploadUrl"]
    assert (made.status, made.json["nextExpectedRanges"]) == (201, ["0"])
    assert not url.startswith(graph.origin), "another host, which the token must not reach"

    async def put(first: int, size: int, **words: Any) -> Any:
        piece = large[first : first + size]
        spread = f"bytes {first}-{first + len(piece) - 1}/{len(large)}"
        return await caller.ask("PUT", url, piece, Content_Range=spread, **({"authorized": False} | words))

    assert (await put(0, 10 * PIECE, authorized=True)).status == 401
    assert (await put(0, 4 << 20)).status == 413, "a piece is smaller than 4 MB"
    assert (await put(0, 1000)).status == 400, "a piece is a multiple of 320 KiB"
    assert (await put(10 * PIECE, PIECE)).status == 416, "one after the other"
    assert (await put(0, 10 * PIECE)).json["nextExpectedRanges"] == [str(10 * PIECE)]
    assert (await caller.ask("GET", url, authorized=False)).json["nextExpectedRanges"] == [str(10 * PIECE)]
    last = await put(10 * PIECE, 10 * PIECE)
    assert (last.status, last.body) == (201, b"")
    assert "/Attachments('" in last.headers["location"]
    assert (await put(0, PIECE)).status == 404
    await caller.send(draft)
    assert graph.receipts()[0]["attachments"][0]["sha256"] == hashlib.sha256(large).hexdigest()


async def test_a_session_takes_neither_too_little_nor_too_much(caller: Caller) -> None:
    draft = await caller.draft()
    small = await session(caller, draft, 2_999_999)
    assert (small.status, small.code) == (400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
    assert (await session(caller, draft, 3_000_000)).status == 201
    large = await session(caller, draft, 30 << 20)
    assert (large.status, large.code) == (413, "ErrorMessageSizeExceeded")


async def test_a_batch_answers_each_of_its_requests(graph: GraphFake, caller: Caller) -> None:
    json = {"Content-Type": "application/json"}
    requests = [
        {"id": "1", "method": "POST", "url": "/me/sendMail", "headers": json, "body": {"message": message()}},
        {"id": "2", "method": "GET", "url": "/me/messages/none"},
        {"id": "3", "method": "GET", "url": "/me"},
    ]
    told = await caller.ask("POST", "/$batch", {"requests": requests})
    answers = {one["id"]: one for one in told.json["responses"]}
    assert {name: one["status"] for name, one in answers.items()} == {"1": 202, "2": 404, "3": 200}
    assert answers["2"]["body"]["error"]["code"] == "ErrorItemNotFound"
    assert answers["3"]["body"]["mail"] == ALICE
    assert len(graph.receipts()) == 1
    many = [{"id": str(number), "method": "GET", "url": "/me"} for number in range(21)]
    assert (await caller.ask("POST", "/$batch", {"requests": many})).status == 400
