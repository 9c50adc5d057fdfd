"""What the Gmail fake refuses by itself: bad mails, large ones, too many; and how mails come in by upload."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from tests.support.gmail.caller import ALICE, Caller, mail, raw
from tests.support.gmail.double import GmailFake
from tests.support.gmail.world import Spent

MIB = 1 << 20
LARGEST = 36_700_160
UPLOAD = "/upload/gmail/v1/users/me/messages/send"
RFC822 = {"Content-Type": "message/rfc822"}


def reason(told: Any) -> str:
    assert told["error"]["errors"][0]["message"]
    return told["error"]["errors"][0]["reason"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "'raw' RFC822 payload message string"),
        ({"raw": "!!!"}, "Invalid value at 'raw' (TYPE_BYTES), Base64 decoding failed for \"!!!\""),
        ({"raw": "abcde"}, "Base64 decoding failed"),
        ({"raw": "ab+/"}, "Base64 decoding failed"),
        ({"raw": 7}, "Invalid value at 'raw'"),
    ],
)
async def test_what_is_no_base64url_is_no_mail(gmail: GmailFake, caller: Caller, said: Any, message: str) -> None:
    status, told = await caller.ask("POST", "messages/send", said)
    assert (status, reason(told), told["error"]["status"]) == (400, "invalidArgument", "INVALID_ARGUMENT")
    assert message in told["error"]["message"]
    assert gmail.receipts() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Subject: nobody\r\n\r\ntext", "Recipient address required"),
        (b"To: undisclosed-recipients:;\r\n\r\ntext", "Recipient address required"),
        (b"\r\nTo: a@b.test\r\n\r\n", "Recipient address required"),
        (b"To: a b@c.test\r\n\r\n", "Invalid To header"),
        (b"To: a@b.test, c\r\n\r\n", "Invalid To header"),
        (b"To: a@b.test\r\nCc: d@@e.test\r\n\r\n", "Invalid Cc header"),
        (b"To: a@b.test\r\nBcc: d@e\r\n\r\n", "Invalid Bcc header"),
        (b"To: \xff@b.test\r\n\r\n", "Invalid To header"),
        (b"From: nobody\r\nTo: a@b.test\r\n\r\n", "Invalid From header"),
        (b"To: a@b.test\r\nTo: c@d.test\r\n\r\n", "Multiple To headers"),
        (b"To: a@b.test\r\nSubject: a\r\nsubject: b\r\n\r\n", "Multiple Subject headers"),
        (b"To: a@b.test\r\nSubject: a\rBcc: e@f.test\r\n\r\n", "Invalid header"),
        (b"To: a@b.test\r\nSubject: a\0b\r\n\r\n", "Invalid header"),
        (b"To: a@b.test\r\nno header\r\n\r\n", "Invalid header"),
        (b"To: a@b.test\r\nX Y: z\r\n\r\n", "Invalid header"),
        (b"To: " + b", ".join(b"r%d@b.test" % n for n in range(101)) + b"\r\n\r\n", "Too many recipients"),
    ],
)
async def test_what_is_wrong_with_a_mail_is_said(
    gmail: GmailFake, caller: Caller, content: bytes, message: str
) -> None:
    status, told = await caller.ask("POST", "messages/send", {"raw": raw(content)})
    assert (status, reason(told), told["error"]["message"]) == (400, "invalidArgument", message)
    assert gmail.receipts() == []


async def test_what_is_unusual_in_a_mail_is_taken(gmail: GmailFake, caller: Caller) -> None:
    content = (
        'From: somebody.else@example.test\nTo: "Doe, John" <john@b.test>,\n =?utf-8?q?J=C3=BCrgen?= <jürgen@bücher.test>\n'
        "Cc: JOHN@b.test\nSubject: folded\n text\nX-A: 1\nX-A: 2\n\nline\n"
    ).encode()
    status, _ = await caller.ask("POST", "messages/send", {"raw": raw(content).rstrip("=")})
    assert status == 200
    (receipt,) = gmail.receipts()
    assert receipt.recipients == ("john@b.test", "jürgen@bücher.test")
    assert receipt.message_id_before is None
    (one,) = await gmail.mails()
    assert f"\r\nFrom: {ALICE}\r\n".encode() in b"\r\n" + one.sent
    assert b"X-Google-Original-From: somebody.else@example.test\r\n" in one.sent
    assert b"Subject: folded\r\n text\r\nX-A: 1\r\nX-A: 2\r\n" in one.sent
    assert b"\r\nDate: " in one.sent


async def test_the_largest_mail_and_one_byte_more(gmail: GmailFake, caller: Caller) -> None:
    content = mail(text="x" * (LARGEST - len(mail(text=""))))
    assert len(content) == LARGEST
    status, told = await caller.ask("POST", UPLOAD, data=content, params={"uploadType": "media"}, headers=RFC822)
    assert status == 200, told
    for path in (UPLOAD, UPLOAD.replace("messages/send", "drafts")):
        status, told = await caller.ask(
            "POST", path, data=content + b"x", params={"uploadType": "media"}, headers=RFC822
        )
        assert (status, reason(told)) == (413, "uploadTooLarge")
    headers = {"X-Upload-Content-Type": "message/rfc822", "X-Upload-Content-Length": str(LARGEST + 1)}
    status, told = await caller.ask("POST", UPLOAD, params={"uploadType": "resumable"}, headers=headers)
    assert (status, reason(told)) == (413, "uploadTooLarge")
    status, told = await caller.ask("POST", "messages/send", {"raw": raw(mail(text="x" * 4 * MIB))})
    assert (status, reason(told)) == (400, "badRequest")
    assert told["error"]["message"] == "Request payload size exceeds the limit: 5242880 bytes."
    assert [one.size for one in gmail.receipts()] == [LARGEST]
    _, _, began = await caller.whole("POST", UPLOAD, params={"uploadType": "resumable"})
    span = {"Content-Range": f"bytes 0-{MIB - 1}/{LARGEST + 1}"}
    where = began["Location"].removeprefix(gmail.url)
    status, told = await caller.ask("PUT", where, data=b"x" * MIB, headers=span)
    assert (status, reason(told)) == (413, "uploadTooLarge")


async def test_an_upload_in_two_parts(gmail: GmailFake, caller: Caller) -> None:
    known = (await caller.ask("POST", "messages/send", {"raw": raw(mail())}))[1]["threadId"]
    reply = mail(head=f"References: {gmail.receipts()[0].message_id_after}\nX-Postledger-Marker: two")
    about = json.dumps({"threadId": known}).encode()
    body = b"--cut\r\nContent-Type: application/json\r\n\r\n" + about
    body += b"\r\n--cut\r\nContent-Type: message/rfc822\r\n\r\n" + reply + b"\r\n--cut--\r\n"
    headers = {"Content-Type": 'multipart/related; boundary="cut"'}
    status, told = await caller.ask("POST", UPLOAD, data=body, params={"uploadType": "multipart"}, headers=headers)
    assert (status, told["threadId"]) == (200, known)
    assert ((await gmail.mails())[1].given, gmail.receipts()[1].marker) == (reply, "two")
    for broken in (body[:-8], body.replace(b"message/rfc822", b"text/plain"), b""):
        status, _ = await caller.ask("POST", UPLOAD, data=broken, params={"uploadType": "multipart"}, headers=headers)
        assert status == 400
    assert len(gmail.receipts()) == 2


@pytest.mark.parametrize("path", [UPLOAD, f"/resumable{UPLOAD}"])
async def test_an_upload_in_pieces(gmail: GmailFake, caller: Caller, path: str) -> None:
    content = mail(text="x" * 600_000)
    total, piece = len(content), 256 * 1024
    headers = {"X-Upload-Content-Type": "message/rfc822", "X-Upload-Content-Length": str(total)}
    status, body, began = await caller.whole("POST", path, {}, params={"uploadType": "resumable"}, headers=headers)
    assert (status, body) == (200, b"")
    where = began["Location"].removeprefix(gmail.url)

    async def put(span: str, data: bytes = b"") -> tuple[int, bytes, Any]:
        return await caller.whole("PUT", where, data=data, headers={"Content-Range": f"bytes {span}"})

    status, _, told = await put(f"*/{total}")
    assert (status, "Range" in told) == (308, False)
    status, _, told = await put(f"0-{piece - 1}/{total}", content[:piece])
    assert (status, told["Range"]) == (308, f"bytes=0-{piece - 1}")
    assert (await put(f"{piece}-{piece + 999}/{total}", content[piece : piece + 1000]))[0] == 400
    assert (await put(f"{piece}-{total - 1}/{total}", b"short"))[0] == 400
    assert gmail.receipts() == []
    await gmail.fail("messages.send", drop="after", times=2)  # aiohttp tries a PUT again by itself, once
    with pytest.raises(aiohttp.ClientOSError):
        await put(f"{piece}-{total - 1}/{total}", content[piece:])
    status, body, _ = await put(f"*/{total}")
    assert (status, json.loads(body)["id"]) == (200, gmail.receipts()[0].id)
    assert (await put(f"{piece}-{total - 1}/{total}", content[piece:]))[0] == 200
    assert [one.given == content for one in await gmail.mails()] == [True]
    assert (await gmail.told())["requests"]["upload.start"] == 1


async def test_a_draft_by_upload(gmail: GmailFake, caller: Caller) -> None:
    path = "/upload/gmail/v1/users/me/drafts"
    status, told = await caller.ask("POST", path, data=mail(), params={"uploadType": "media"}, headers=RFC822)
    assert status == 200
    other = mail(subject="other")
    path += f"/{told['id']}"
    status, _ = await caller.ask("PUT", path, data=other, params={"uploadType": "media"}, headers=RFC822)
    assert status == 200
    assert (await caller.ask("POST", "drafts/send", {"id": told["id"]}))[0] == 200
    assert (await gmail.mails())[0].given == other


@pytest.mark.parametrize(("kind", "status"), [("rateLimitExceeded", 403), ("tooManyRequests", 429)])
@pytest.mark.parametrize("retry_after", [True, False])
async def test_a_minute_has_only_so_many_units(
    gmail: GmailFake, caller: Caller, kind: str, status: int, *, retry_after: bool
) -> None:
    await gmail.set(unitsPerUser=230, quotaKind=kind, quotaRetryAfter=retry_after)
    for _ in range(2):
        assert (await caller.ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 200
    found, body, headers = await caller.whole("POST", "messages/send", {"raw": raw(mail())})
    assert (found, reason(json.loads(body))) == (status, "rateLimitExceeded")
    assert ("Retry-After" in headers) is retry_after
    assert not retry_after or 55 <= int(headers["Retry-After"]) <= 61
    assert (await caller.ask("GET", "profile"))[0] == 200
    assert (await Caller(caller.http, "bob").ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 200
    told = await gmail.told()
    assert told["units"] == {ALICE: 201, "bob@gmail.test": 100}
    assert len(gmail.receipts()) == 3


async def test_what_was_spent_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    spent = Spent(60)
    spent.add(60)
    now += 30
    spent.add(30)
    assert (spent.wait(10, 100), spent.wait(20, 100), spent.wait(80, 100), spent.wait(1, None)) == (0, 30, 60, 0)
    now += 30
    assert (spent.wait(70, 100), spent.total, spent.wait(101, 100)) == (0, 30, 60)


async def test_a_day_has_only_so_many_mails(gmail: GmailFake, caller: Caller) -> None:
    await gmail.set(sendsPerDay=1)
    draft = await caller.draft(mail())
    assert (await caller.ask("POST", "messages/send", {"raw": raw(mail())}))[0] == 200
    status, told = await caller.ask("POST", "drafts/send", {"id": draft})
    assert (status, reason(told)) == (429, "userRateLimitExceeded")
    assert "Mail sending" in told["error"]["message"]
    assert (await caller.ask("GET", f"drafts/{draft}"))[0] == 200
    await gmail.set(unitsPerDay=1)
    status, told = await caller.ask("GET", "profile")
    assert (status, reason(told)) == (403, "dailyLimitExceeded")


async def test_a_user_has_only_so_many_requests_at_once(gmail: GmailFake, caller: Caller) -> None:
    await gmail.set(concurrentPerUser=2, latency=1)
    answers = await asyncio.gather(*(caller.ask("GET", "profile") for _ in range(5)))
    assert sorted(status for status, _ in answers) == [200] * 2 + [429] * 3
    assert (await gmail.told())["mostOpen"][ALICE] == 5
