"""Attachments over real HTTP: uploading, finding and downloading them, and what is refused."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from domain.attachments import MOST_BYTES
from gateways.http.v1.attachments import ATTACHMENT_ID
from gateways.local_ports import free_port
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Decisions
from projections import attachments
from schemas import commands, events
from tests.support.connected import person
from tests.support.http_house import HttpHouse, bearer, served
from tests.support.uploads import (
    BOUNDARY,
    CANARY,
    UPLOAD,
    asked,
    blobs_of,
    content,
    form,
    head_of,
    sent,
    uploaded,
    whole,
)

# ── storing one ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_file_is_stored_found_and_read_back(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    _, key, user = whose
    body = os.urandom(300_000)
    status, made, headers = await sent(house, key, user, whole(form(body, "Grüße 雪.bin")))
    assert status == 201
    assert made == {
        "id": made["id"],
        "attachmentId": made["id"],
        "userId": user,
        "name": "Grüße 雪.bin",
        "size": 300_000,
        "contentType": "application/octet-stream",
        "sha256": hashlib.sha256(body).hexdigest(),
        "createdAt": made["createdAt"],
    }
    assert ATTACHMENT_ID.fullmatch(made["id"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["createdAt"])
    assert headers["Location"] == f"/v1/attachments/{made['id']}"
    seen = {"X-After-Position": headers["X-Log-Position"]}
    assert (await asked(house, "GET", headers["Location"], key, headers=seen))[:2] == (200, made)
    for query in ("", f"?userId={user}", f"?userId={user}&limit=1"):
        assert (await asked(house, "GET", f"/v1/attachments{query}", key))[1] == {"items": [made], "nextCursor": None}
    status, found, told = await content(house, headers["Location"] + "/content", key)
    assert (status, found) == (200, body)
    assert told["ETag"] == f'"{made["sha256"]}"'
    assert told["X-Content-Type-Options"] == "nosniff"
    assert told["Content-Disposition"].startswith("attachment; ")
    assert told["Content-Type"] == "application/octet-stream"
    assert "immutable" in told["Cache-Control"]
    part = await content(house, headers["Location"] + "/content", key, Range="bytes=10-19")
    assert (part[0], part[1], part[2]["Content-Range"]) == (206, body[10:20], "bytes 10-19/300000")
    assert (await content(house, headers["Location"] + "/content", key, **{"If-None-Match": told["ETag"]}))[0] == 304


async def test_nothing_of_it_stands_readable_in_log_tables_or_files(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    account, key, user = whose
    made = await uploaded(house, key, user, CANARY, "canary-name.txt", "text/plain")
    row = await attachments.by_id(house.services.pool, account, made["id"])
    assert row is not None
    assert "canary" not in repr(row)
    assert blobs_of(house, user) == [row.blob] == [f"{user}/{made['id']}.bin"]
    for path in house.house.settings.data.rglob("*"):
        if path.is_file():
            assert b"anary-of" not in path.read_bytes(), path
            assert b"canary-name" not in path.read_bytes(), path
    assert (await content(house, f"/v1/attachments/{made['id']}/content", key))[1] == CANARY


async def test_the_largest_file_is_taken_and_a_byte_more_is_not(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    _, key, user = whose
    body = bytes(range(256)) * (MOST_BYTES // 256 + 1)
    for size in (0, 1, MOST_BYTES - 1, MOST_BYTES):
        made = await uploaded(house, key, user, body[:size])
        assert made["size"] == size
        assert (await content(house, f"/v1/attachments/{made['id']}/content", key))[1] == body[:size]
    kept = blobs_of(house, user)
    status, problem, _ = await sent(house, key, user, whole(form(body[: MOST_BYTES + 1])))
    assert (status, problem["code"]) == (413, "attachment_too_large")
    assert "5,000,000" in problem["detail"]

    async def chunks() -> AsyncIterator[bytes]:
        yield form(body[: MOST_BYTES + 1])[:-2]
        yield body
        yield whole(b"\r\n")

    for much in (chunks(), whole(form(body * 4))):
        status, problem, _ = await sent(house, key, user, much)
        assert (status, problem["code"]) == (413, "attachment_too_large"), "heard though it was still sending"
    assert blobs_of(house, user) == kept


async def test_who_says_too_much_is_refused_before_anything_is_read(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    _, key, user = whose
    port = int(house.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head_of(key, user, 50_000_000))
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"attachment_too_large" in answer
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_eight_uploads_at_once_take_little_memory(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    """Client and server are one process here: the client sends slices of one buffer."""
    _, key, user = whose
    body, resident = os.urandom(MOST_BYTES), _resident()
    highest, head = resident, form(b"")[:-2]

    async def slices() -> AsyncIterator[bytes]:
        nonlocal highest
        yield head
        for start in range(0, len(body), 65_536):
            highest = max(highest, _resident())
            yield body[start : start + 65_536]
        yield whole(b"\r\n")

    answers = await asyncio.gather(*(sent(house, key, user, slices()) for _ in range(8)))
    assert [status for status, _, _ in answers] == [201] * 8
    assert {made["sha256"] for _, made, _ in answers} == {hashlib.sha256(body).hexdigest()}
    assert highest - resident < 24 * 1024 * 1024


def _resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read thousands of times
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (whole(), ["/file"]),
        (whole(form(b"x", field="files")), ["/files", "/file"]),
        (whole(form(b"x"), form(b"y", field="a/b~c")), ["/a~1b~0c"]),
        (whole(form(b"x"), form(b"y")), ["/file"]),
        (whole(form(b"x"), form(b"y", field="a"), form(b"z", field="b")), ["/a", "/b"]),
        (whole(*[form(b"x", field="a")] * 30), ["/a", "/file"]),
        (form(b"x"), [""]),
        (whole(form(b"x"))[:-30], [""]),
        (b"", [""]),
        (b"--", [""]),
        (b"x" * 5000, [""]),
        (b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n' % BOUNDARY.encode(), [""]),
        (b"--%b\r\n%b: x\r\n\r\n" % (BOUNDARY.encode(), b"a" * 9000), [""]),
        (b"--%b\r\n%b\r\n" % (BOUNDARY.encode(), b"a: b\r\n" * 99), [""]),
        (b"--%b\r\n\0\r\n\r\n" % BOUNDARY.encode(), [""]),
        (b"--other\r\n\r\nx\r\n--other--\r\n", [""]),
    ],
)
async def test_a_form_that_is_wrong_is_told_why(
    house: HttpHouse, whose: tuple[str, str, str], body: bytes, pointers: list[str]
) -> None:
    _, key, user = whose
    status, problem, _ = await sent(house, key, user, body)
    assert (status, problem["code"]) == (400, "invalid_request"), problem
    assert [fault["pointer"] for fault in problem["errors"]] == pointers
    assert blobs_of(house, user) == []


async def test_all_that_is_wrong_is_told_at_once(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    _, key, user = whose
    status, problem, _ = await sent(house, key, None, whole(form(b"x", field="f")), **{"Idempotency-Key": '"'})
    assert status == 400
    found = [fault["pointer"] for fault in problem["errors"]]
    assert found == ["/query/userId", "/headers/Idempotency-Key", "/f", "/file"]
    for kind in (
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        f"multipart/form-data; boundary={'x' * 300}",
    ):
        status, problem, _ = await sent(house, key, user, b"{}", **{"Content-Type": kind})
        assert status == 400, kind
    status, problem, _ = await sent(house, key, user, whole(form(b"x")), **{"Content-Type": "text/plain"})
    assert [fault["pointer"] for fault in problem["errors"]] == ["/headers/Content-Type"]
    assert (await asked(house, "POST", f"{UPLOAD}?user_id={user}", key, data=b""))[1]["errors"][0][
        "pointer"
    ] == "/query/user_id"


async def test_an_upload_that_is_cut_off_leaves_nothing(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    _, key, user = whose
    port = int(house.url.rpartition(":")[2])
    body = whole(form(os.urandom(600_000)))
    for cut in (10, 200, 300_000, len(body) - 1):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head_of(key, user, len(body)) + body[:cut])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await uploaded(house, key, user, b"the one that was whole")
    assert len(blobs_of(house, user)) == 1
    assert len((await asked(house, "GET", f"/v1/attachments?userId={user}", key))[1]["items"]) == 1
    drafts = [path for path in house.house.settings.data.rglob(".*.bin.*") if user in str(path)]
    assert drafts == []


async def test_what_is_not_the_accounts_is_not_there(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    _, key, user = whose
    account, stranger = await house.account()
    other = await person(house, account, stranger)
    made = await uploaded(house, key, user, b"mine")
    for found in (user, "usr_" + "0" * 26, "usr_x", "%00"):
        status, problem, _ = await sent(house, stranger, found, whole(form(b"x")))
        assert (status, problem["code"]) == (404, "not_found")
    heard = []
    for attachment in (made["id"], "att_" + "0" * 26, "att_x", "%00", made["id"].upper()):
        for method, ending in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            status, problem, _ = await asked(house, method, f"/v1/attachments/{attachment}{ending}", stranger)
            heard.append((status, problem["code"], problem["detail"]))
    assert set(heard) == {heard[0]}
    assert heard[0][0] == 404
    assert (await asked(house, "GET", "/v1/attachments", stranger))[1]["items"] == []
    assert (await asked(house, "GET", f"/v1/attachments?userId={user}", stranger))[1]["items"] == []
    pool = house.services.pool
    assert await attachments.of_user(pool, account, other.id, [made["id"]]) == []
    assert [row.attachment for row in await attachments.of_user(pool, whose[0], user, [made["id"], "att_x"])] == [
        made["id"]
    ]
    assert (await content(house, f"/v1/attachments/{made['id']}/content", key))[1] == b"mine"


async def test_a_store_or_a_log_that_does_not_answer_is_told_and_leaves_nothing(
    house: HttpHouse, whose: tuple[str, str, str], tmp_path: Any
) -> None:
    _, key, user = whose
    dead = CommandLog(f"127.0.0.1:{free_port()}")
    decisions = Decisions(dead, house.house.tail, house.house.folded, commands=commands.ACCOUNT, events=events.ACCOUNT)
    full = tmp_path / "file"
    full.touch()
    for more in ({"account_decisions": decisions}, {"blobs": type(house.house.blobs)(full)}):  # type: ignore[call-arg]  # the store on a local disk
        services = replace(house.services, metrics=CollectorRegistry(), **more)
        async with served(services) as url:
            said = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **bearer(key)}
            async with house.http.post(f"{url}{UPLOAD}?userId={user}", data=whole(form(b"x")), headers=said) as answer:
                problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"]) == (503, "unavailable")
        assert "Retry-After" in answer.headers
    assert blobs_of(house, user) == []


# ── repeating ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_request_under_the_same_key_is_answered_as_the_first(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    account, key, user = whose
    said = {"Idempotency-Key": "invoice-4711"}
    made = await uploaded(house, key, user, b"one", "a.txt", **said)
    for _ in range(2):
        status, again, headers = await sent(house, key, user, whole(form(b"one", "a.txt", "text/csv")), **said)
        assert (status, again, headers["Idempotency-Replayed"]) == (201, made, "true")
    for other in (form(b"two", "a.txt"), form(b"one", "b.txt")):
        status, problem, _ = await sent(house, key, user, whole(other), **said)
        assert (status, problem["code"]) == (409, "idempotency_key_reused")
    ada = await person(house, account, key)
    assert (await uploaded(house, key, ada.id, b"two", **said))["id"] != made["id"], "another user's key"
    racing = await asyncio.gather(*(uploaded(house, key, user, b"x", **{"Idempotency-Key": "race"}) for _ in range(10)))
    assert len({each["id"] for each in racing}) == 1
    assert len(blobs_of(house, user)) == 2
    assert (await asked(house, "DELETE", f"/v1/attachments/{made['id']}", key))[0] == 204
    status, problem, _ = await sent(house, key, user, whole(form(b"one", "a.txt")), **said)
    assert (status, problem["code"]) == (410, "gone")
