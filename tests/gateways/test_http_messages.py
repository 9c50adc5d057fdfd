"""Messages over real HTTP: listing, reading, downloading and deleting them."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import pytest

from gateways.http import serving
from gateways.local_servers import Servers
from tests.support.http_house import HttpHouse, bearer, http_house, path
from tests.support.servers import create_database, drop_database

NAME = "../Größe/rech\u202enung.pdf"
PDF = b"%PDF-1.7 " + bytes(range(256)) * 300


def mail(subject: str = "Ihr Code: 481516", *, files: dict[str, bytes] | None = None) -> bytes:
    message = EmailMessage()
    message["From"] = "Shop <shop@example.org>"
    message["To"] = "you@mail.example"
    message["Cc"] = "boss@example.org"
    message["Subject"] = subject
    message["Message-ID"] = f"<{uuid.uuid4().hex}@example.org>"
    message.set_content("Your code is 481516.")
    message.add_alternative("<p>Your code is <b>481516</b>.</p>", subtype="html")
    for name, content in (files or {}).items():
        message.add_attachment(content, "application", "pdf", filename=name)
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"http_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def get(house: HttpHouse, box: dict[str, Any], tail: str, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body of a GET below an inbox."""
    async with house.http.get(house.url + path(box) + tail, headers=bearer(box) | headers) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_mail_is_listed_with_what_its_header_says(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail("Größe"))
    (listed,) = await house.listed(box, 1)
    received_at = listed.pop("received_at")
    assert datetime.fromisoformat(received_at).utcoffset() is not None
    assert received_at.endswith("+00:00")
    assert listed.pop("id").startswith("msg_")
    assert listed == {
        "from_address": "shop@example.org",
        "subject": "Größe",
        "is_read": False,
        "has_attachments": False,
    }


async def test_a_mail_without_a_sender_in_its_header_is_listed_with_the_envelopes(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], b"Subject: hi\r\n\r\nbody\r\n")
    (listed,) = await house.listed(box, 1)
    assert listed["from_address"] == "bounce@example.org"


async def test_lists_are_newest_first_and_paged(house: HttpHouse) -> None:
    box = await house.mailbox()
    for number in range(10):
        await house.deliver(box["address"], mail(f"number {number}"))
    subjects = [one["subject"] for one in await house.listed(box, 10)]
    assert sorted(subjects) == [f"number {number}" for number in range(10)]
    for query, expected in (
        ("?limit=3", subjects[:3]),
        ("?limit=3&offset=3", subjects[3:6]),
        ("?offset=8", subjects[8:]),
        ("?offset=10", []),
        ("?offset=9007199254740993", []),
        ("?limit=1000000000000000000000000", subjects),
        ("", subjects),
    ):
        status, _, body = await get(house, box, "/messages" + query)
        assert status == 200
        assert [one["subject"] for one in json.loads(body)] == expected


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=", "offset=-1", "offset=1.0", "limit=1e9"])
async def test_a_page_that_is_no_number_is_refused(house: HttpHouse, query: str) -> None:
    box = await house.mailbox()
    status, headers, body = await get(house, box, "/messages?" + query)
    assert status == 422
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"


async def test_a_list_that_has_not_changed_is_not_sent_again(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail())
    (listed,) = await house.listed(box, 1)
    status, headers, _ = await get(house, box, "/messages")
    etag, position = headers["ETag"], headers["X-Log-Position"]
    status, headers, body = await get(house, box, "/messages", **{"If-None-Match": etag})
    assert (status, body, headers["ETag"]) == (304, b"", etag)
    status, _, _ = await get(house, box, f"/messages/{listed['id']}", **{"X-After-Position": position})
    assert status == 200
    status, _, body = await get(house, box, "/messages", **{"If-None-Match": etag})
    assert status == 200
    assert json.loads(body)[0]["is_read"] is True


async def test_a_list_shows_what_was_there_at_its_position_and_nothing_later(house: HttpHouse) -> None:
    """So that a stream that goes on from there shows each message once."""
    box = await house.mailbox()
    await house.deliver(box["address"], mail("first"))
    await house.listed(box, 1)
    _, headers, body = await get(house, box, "/messages")
    topic, _, offset = headers["X-Log-Position"].rpartition(":")
    assert topic == "mailbox.events-0"
    shown = await house.services.pool.fetch(
        "select message from messages where mailbox = $1 and shown_at < $2 order by shown_at desc",
        house.services.keyset.mailbox_of_token(box["session_token"]),
        int(offset),
    )
    assert [row["message"] for row in shown] == [one["id"] for one in json.loads(body)]


async def test_reading_a_message_shows_it_whole_and_marks_it(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail(files={NAME: PDF}))
    (listed,) = await house.listed(box, 1)
    assert listed["has_attachments"] is True
    status, headers, body = await get(house, box, f"/messages/{listed['id']}")
    message = json.loads(body)
    assert status == 200
    assert "no-store" in headers["Cache-Control"]
    assert message["from_name"] == "Shop"
    assert message["from_address"] == "shop@example.org"
    assert message["to_address"] == box["address"]
    assert message["to"] == ["you@mail.example"]
    assert message["cc"] == ["boss@example.org"]
    assert message["reply_to"] == []
    assert message["body_text"].strip() == "Your code is 481516."
    assert "<b>481516</b>" in message["body_html"]
    assert message["headers"]["subject"] == ["Ihr Code: 481516"]
    assert message["is_read"] is True
    assert message["state"] == "whole"
    (attachment,) = message["attachments"]
    assert set(attachment) == {"index", "filename", "content_type", "size", "content_id", "sha256"}
    assert (attachment["index"], attachment["size"]) == (0, len(PDF))
    assert attachment["sha256"] == hashlib.sha256(PDF).hexdigest()


async def test_a_list_right_after_a_message_was_read_says_so(house: HttpHouse) -> None:
    """And so does one that names the position of having read it, whoever answers it."""
    box = await house.mailbox()
    await house.deliver(box["address"], mail())
    (listed,) = await house.listed(box, 1)
    _, read, _ = await get(house, box, f"/messages/{listed['id']}")
    _, _, body = await get(house, box, "/messages")
    assert json.loads(body)[0]["is_read"] is True
    position = read["X-Log-Position"]
    _, headers, body = await get(house, box, "/messages", **{"X-After-Position": position})
    assert json.loads(body)[0]["is_read"] is True
    assert int(headers["X-Log-Position"].rpartition(":")[2]) >= int(position.rpartition(":")[2])


async def test_a_message_is_marked_once_whoever_reads_it_at_once(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail())
    (listed,) = await house.listed(box, 1)
    answers = await asyncio.gather(*(get(house, box, f"/messages/{listed['id']}") for _ in range(5)))
    assert [status for status, _, _ in answers] == [200] * 5
    assert all(json.loads(body)["is_read"] for _, _, body in answers)
    assert (await house.listed(box, 1))[0]["is_read"] is True


async def test_a_message_is_shown_though_marking_it_takes_long_and_whoever_asks_may_leave(
    house: HttpHouse, caplog: pytest.LogCaptureFixture
) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail("one"))
    await house.deliver(box["address"], mail("two"))
    first, second = await house.listed(box, 2)
    async with house.services.pool.acquire() as connection, connection.transaction():
        await connection.execute("lock table messages in exclusive mode")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await get(house, box, f"/messages/{first['id']}")
        status, headers, body = await get(house, box, f"/messages/{second['id']}")
        assert (status, json.loads(body)["subject"]) == (200, second["subject"])
        assert "X-Log-Position" not in headers
    async with asyncio.timeout(10):
        while not all(one["is_read"] for one in await house.listed(box, 2)):
            await asyncio.sleep(0.02)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_mail_that_cannot_be_parsed_is_shown_as_such(house: HttpHouse) -> None:
    box = await house.mailbox()
    hostile = b"From: a@example.org\r\nX: " + b"y" * 300_000 + b"\r\n\r\nbody\r\n"
    await house.deliver(box["address"], hostile)
    (listed,) = await house.listed(box, 1)
    assert listed["subject"] is None
    assert listed["from_address"] == "bounce@example.org"
    _, _, body = await get(house, box, f"/messages/{listed['id']}")
    message = json.loads(body)
    assert message["state"] == "unparsed"
    assert (message["body_text"], message["body_html"], message["headers"], message["attachments"]) == (
        None,
        None,
        {},
        [],
    )
    _, _, raw = await get(house, box, f"/messages/{listed['id']}/raw")
    assert raw == hostile


# ── downloads ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_raw_mail_is_every_byte_that_came(house: HttpHouse) -> None:
    box, raw = await house.mailbox(), mail()
    await house.deliver(box["address"], raw)
    (listed,) = await house.listed(box, 1)
    where = f"/messages/{listed['id']}/raw"
    status, headers, body = await get(house, box, where)
    assert (status, body) == (200, raw)
    assert headers["Content-Type"] == "message/rfc822"
    assert headers["Content-Disposition"] == f'attachment; filename="{listed["id"]}.eml"'
    assert headers["ETag"] == f'"{hashlib.sha256(raw).hexdigest()}"'
    assert "immutable" in headers["Cache-Control"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, _, body = await get(house, box, where, **{"If-None-Match": headers["ETag"]})
    assert (status, body) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-10", slice(-10, None)),
        ("bytes=5-100000000", slice(5, None)),
        ("bytes=-100000000", slice(0, None)),
    ],
)
async def test_one_range_of_bytes_is_answered(house: HttpHouse, asked: str, expected: slice) -> None:
    box, raw = await house.mailbox(), mail()
    await house.deliver(box["address"], raw)
    (listed,) = await house.listed(box, 1)
    status, headers, body = await get(house, box, f"/messages/{listed['id']}/raw", Range=asked)
    start, stop, _ = expected.indices(len(raw))
    assert (status, body) == (206, raw[expected])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(raw)}"


async def test_ranges_that_help_nobody_cost_nothing(house: HttpHouse) -> None:
    """Many at once (CVE-2025-62727), nonsense, or of another version: the whole. Beyond the end: 416."""
    box, raw = await house.mailbox(), mail()
    await house.deliver(box["address"], raw)
    (listed,) = await house.listed(box, 1)
    where = f"/messages/{listed['id']}/raw"
    for asked in (
        "bytes=" + ",".join(f"{n}-" for n in range(1000)),
        "bytes=0-1,3-4",
        "bytes=9-1",
        "lines=1-2",
        "bytes=-",
    ):
        assert (await get(house, box, where, Range=asked))[::2] == (200, raw)
    assert (await get(house, box, where, Range="bytes=0-1", **{"If-Range": '"x"'}))[::2] == (200, raw)
    status, headers, _ = await get(house, box, where, Range=f"bytes={len(raw)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(raw)}")


async def test_an_attachment_is_a_download_under_a_safe_name(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail(files={NAME: PDF, "b.pdf": b"second"}))
    (listed,) = await house.listed(box, 1)
    status, headers, body = await get(house, box, f"/messages/{listed['id']}/attachments/0")
    assert (status, body) == (200, PDF)
    assert headers["Content-Type"] == "application/pdf"
    assert headers["Content-Disposition"] == 'attachment; filename="rechnung.pdf"'
    assert headers["ETag"] == f'"{hashlib.sha256(PDF).hexdigest()}"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    status, headers, body = await get(house, box, f"/messages/{listed['id']}/attachments/1", Range="bytes=0-2")
    assert (status, body) == (206, b"sec")
    for index in ("2", "-1", "x", "00000000000", "0.0", "%00", "٠"):
        assert (await get(house, box, f"/messages/{listed['id']}/attachments/{index}"))[0] == 404


async def test_a_mail_of_megabytes_comes_back_whole(house: HttpHouse) -> None:
    """It is in the blob store, and sent in pieces."""
    box, raw = await house.mailbox(), mail(files={"big.bin": bytes(3_000_000)})
    await house.deliver(box["address"], raw)
    (listed,) = await house.listed(box, 1)
    assert (await get(house, box, f"/messages/{listed['id']}/raw"))[2] == raw
    assert (await get(house, box, f"/messages/{listed['id']}/attachments/0"))[2] == bytes(3_000_000)


async def test_who_does_not_read_is_dropped(house: HttpHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "UNREAD_SECONDS", 0.5)
    box = await house.mailbox()
    await house.deliver(box["address"], mail(files={"big.bin": bytes(12_000_000)}))
    (listed,) = await house.listed(box, 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]), limit=1024)
    request = f"GET {path(box)}/messages/{listed['id']}/raw HTTP/1.1\r\nHost: x\r\n"
    writer.write(f"{request}Authorization: Bearer {box['session_token']}\r\n\r\n".encode())
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(1.5)  # not a byte more is read for three times as long as allowed
    came = 0
    try:
        async with asyncio.timeout(5):
            while block := await reader.read(1_000_000):
                came += len(block)
    except ConnectionError:
        pass
    assert came < 12_000_000
    writer.close()


# ── deleting, and who may ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_message_is_gone_for_everybody(house: HttpHouse) -> None:
    box = await house.mailbox()
    await house.deliver(box["address"], mail("one"))
    await house.deliver(box["address"], mail("two"))
    first, second = await house.listed(box, 2)
    async with house.http.delete(f"{house.url}{path(box)}/messages/{first['id']}", headers=bearer(box)) as answer:
        assert answer.status == 204
        position = answer.headers["X-Log-Position"]
    _, _, body = await get(house, box, "/messages", **{"X-After-Position": position})
    assert [one["id"] for one in json.loads(body)] == [second["id"]]
    for tail in ("", "/raw", "/attachments/0"):
        assert (await get(house, box, f"/messages/{first['id']}{tail}"))[0] == 404


async def test_a_message_is_found_in_its_own_inbox_alone(house: HttpHouse) -> None:
    box, other = await house.mailbox(), await house.mailbox()
    await house.deliver(box["address"], mail())
    (listed,) = await house.listed(box, 1)
    for tail in ("", "/raw", "/attachments/0"):
        assert (await get(house, other, f"/messages/{listed['id']}{tail}"))[0] == 404
        where = f"{house.url}{path(box)}/messages/{listed['id']}{tail}"
        async with house.http.get(where, headers=bearer(other)) as answer:
            assert answer.status == 404
        async with house.http.get(where) as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    "message", ["x", "msg_", "msg_%00", "msg_" + "u" * 26, "mbx_" + "0" * 26, "%ff", "..%2f", "a" * 4000]
)
async def test_what_can_not_be_an_id_is_not_there(house: HttpHouse, message: str) -> None:
    box = await house.mailbox()
    assert (await get(house, box, f"/messages/{message}"))[0] == 404


async def test_a_message_is_shown_though_the_log_is_down(house: HttpHouse) -> None:
    """Marking it read can't be promised then; showing it needs no promise."""
    from dataclasses import replace

    from prometheus_client import CollectorRegistry

    from gateways.local_ports import free_port
    from gateways.log.command_log import CommandLog
    from gateways.log.decisions import Decisions
    from schemas import commands, events
    from tests.support.http_house import served

    box = await house.mailbox()
    await house.deliver(box["address"], mail())
    (listed,) = await house.listed(box, 1)
    dead = CommandLog(f"127.0.0.1:{free_port()}")
    tail, folded = house.house.tail, house.house.folded
    decisions = Decisions(dead, tail, folded, commands=commands.MAILBOX, events=events.MAILBOX)
    services = replace(house.services, command_log=dead, decisions=decisions, metrics=CollectorRegistry())
    where = f"{path(box)}/messages/{listed['id']}"
    async with served(services) as url, house.http.get(url + where, headers=bearer(box)) as answer:
        assert answer.status == 200
    assert (await house.listed(box, 1))[0]["is_read"] is False
