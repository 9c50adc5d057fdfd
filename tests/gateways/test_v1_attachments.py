"""Attachments over real HTTP: uploading, finding, downloading and deleting them, and what is refused."""

import asyncio
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from domain.attachments import MOST_BYTES, AttachmentUsed, UseAttachment
from gateways.http.v1.attachment_links import signed_link
from gateways.http.v1.attachments import ATTACHMENT_ID
from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Asked, Decisions
from gateways.log.event_log import EventLog
from gateways.stores.due_attachments import DueAttachments
from handlers.attachments import Ending
from projections import attachments
from schemas import commands, events, topics
from tests.support.connected import person
from tests.support.http_house import HttpHouse, bearer, http_house, served
from tests.support.servers import create_database, drop_database
from tests.support.waiting import until

Answer = tuple[int, dict[str, Any], Mapping[str, str]]
UPLOAD = "/v1/attachments/upload"
BOUNDARY = "a-line-between"
CANARY = b"Canary-of-attachments " * 40


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"files_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


@pytest.fixture
async def whose(house: HttpHouse) -> tuple[str, str, str]:
    """An account, an API key of it, and a user."""
    account, key = await house.account()
    return account, key, (await person(house, account, key)).id


def form(
    content: bytes, name: str | bytes = "a.bin", kind: str = "application/octet-stream", field: str = "file"
) -> bytes:
    """One part of a form, as browsers write it."""
    said = name.encode() if isinstance(name, str) else name
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n' % (
        BOUNDARY.encode(),
        field.encode(),
        said,
    )
    return head + b"Content-Type: %b\r\n\r\n%b\r\n" % (kind.encode(), content)


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()


def head_of(key: str, user: str, length: int) -> bytes:
    """The head of an upload, for those who write the rest themselves."""
    lines = (
        f"POST {UPLOAD}?userId={user} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {key}",
        f"Content-Length: {length}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    )
    return "\r\n".join([*lines, "", ""]).encode()


async def asked(house: HttpHouse, method: str, where: str, who: Any, **more: Any) -> Answer:
    headers = bearer(who) | more.pop("headers", {})
    async with house.http.request(method, house.url + where, headers=headers, **more) as answer:
        body = await answer.json(content_type=None) if answer.status not in {204, 304} else {}
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert body["detail"].endswith(".")
        return answer.status, body, answer.headers


async def sent(house: HttpHouse, key: str, user: str | None, body: Any, **headers: str) -> Answer:
    """The answer to an upload of exactly this body."""
    said = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    where = UPLOAD + (f"?userId={user}" if user is not None else "")
    return await asked(house, "POST", where, key, data=body, headers=said)


async def uploaded(
    house: HttpHouse, key: str, user: str, content: bytes, *named: str, **headers: str
) -> dict[str, Any]:
    status, body, _ = await sent(house, key, user, whole(form(content, *named)), **headers)
    assert status == 201, body
    return body


async def content(
    house: HttpHouse, where: str, who: Any = None, **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    async with house.http.get(house.url + where, headers=bearer(who) | headers) as answer:
        return answer.status, await answer.read(), answer.headers


async def use(house: HttpHouse, account: str, user: str, attachment: str) -> object:
    """What is decided where a send names the attachment."""
    command = UseAttachment(account, user, attachment, "snd_1")
    asked_ = Asked(topics.ACCOUNT_COMMANDS.name, account, attachment, command, attachments.PROJECTION.name)
    return (await house.services.account_decisions.ask(asked_)).event


def blobs_of(house: HttpHouse, user: str) -> list[str]:
    return [name for name in house.house.blobs.names() if name.startswith(user)]


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


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_one_is_gone_with_its_bytes(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    account, key, user = whose
    made = await uploaded(house, key, user, b"x")
    where = f"/v1/attachments/{made['id']}"
    answers = await asyncio.gather(*(asked(house, "DELETE", where, key) for _ in range(5)))
    assert sorted(status for status, _, _ in answers) == [204] + [404] * 4
    for ending in ("", "/content"):
        assert (await asked(house, "GET", where + ending, key))[0] == 404
    assert (await asked(house, "GET", f"/v1/attachments?userId={user}", key))[1]["items"] == []
    await until(lambda: _gone(house, user))
    assert not isinstance(await use(house, account, user, made["id"]), AttachmentUsed)


async def _gone(house: HttpHouse, user: str) -> bool:
    return not blobs_of(house, user)


async def test_what_a_send_has_stays_with_it_and_ends_with_its_user(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    account, key, user = whose
    made = await uploaded(house, key, user, b"sent", "a.txt", "text/plain")
    assert isinstance(await use(house, account, user, made["id"]), AttachmentUsed)
    link = signed_link(house.services.keyset, made["id"], account, datetime.now(UTC) + timedelta(minutes=5))
    assert (await asked(house, "DELETE", f"/v1/attachments/{made['id']}", key))[0] == 204
    assert (await asked(house, "GET", f"/v1/attachments/{made['id']}", key))[0] == 404
    status, found, headers = await content(house, link)
    assert (status, found, headers["Content-Type"]) == (200, b"sent", "text/plain; charset=utf-8")
    assert 'filename="a.txt"' in headers["Content-Disposition"]
    await uploaded(house, key, user, b"never sent")
    assert (await asked(house, "DELETE", f"/v1/users/{user}", key))[0] == 204
    assert (await asked(house, "GET", "/v1/attachments", key))[1]["items"] == []
    await until(lambda: _gone(house, user))
    assert (await content(house, link))[0] in {403, 410}
    assert (await sent(house, key, user, whole(form(b"x"))))[0] == 404


async def test_what_no_send_names_in_time_ends(house: HttpHouse, whose: tuple[str, str, str]) -> None:
    account, key, user = whose
    day = 86_400.0
    services = replace(house.services, attachment_days=0.8 / day, metrics=CollectorRegistry())
    async with served(services) as url:
        said = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **bearer(key)}
        made = []
        for _ in range(2):
            async with house.http.post(f"{url}{UPLOAD}?userId={user}", data=whole(form(b"x")), headers=said) as answer:
                assert answer.status == 201
                made.append((await answer.json())["id"])
    assert isinstance(await use(house, account, user, made[0]), AttachmentUsed)
    kept = await uploaded(house, key, user, b"for seven days")
    await until(lambda: _listed(house, user, key, [kept["id"], made[0]]))
    assert (await asked(house, "GET", f"/v1/attachments/{made[1]}", key))[0] == 404
    assert await attachments.of_user(house.services.pool, account, user, [made[1]]) == []
    pool = house.services.pool
    ended = "select deleted_at from attachments where attachment = $1"
    await until(lambda: pool.fetchval(ended, made[1]))
    await until(lambda: _blobs_are(house, user, {made[0], kept["id"]}))
    assert await pool.fetchval(ended, made[0]) is None


async def _listed(house: HttpHouse, user: str, key: str, wanted: list[str]) -> bool:
    items = (await asked(house, "GET", f"/v1/attachments?userId={user}", key))[1]["items"]
    return [one["id"] for one in items] == wanted


async def _blobs_are(house: HttpHouse, user: str, wanted: set[str]) -> bool:
    return set(blobs_of(house, user)) == {f"{user}/{attachment}.bin" for attachment in wanted}


async def test_a_blob_that_no_event_ever_named_is_swept_and_no_other(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    """As a gateway leaves one that is killed between blob and command."""
    _, key, user = whose
    made = await uploaded(house, key, user, b"x")
    blobs, key_ = house.house.blobs, b"0" * 32
    for name in ("att_orphan.bin", "snd_other.json"):
        await blobs.put(f"{user}/{name}", BytesIO(b"x"), key_, b"")
    log = EventLog(house.house.kafka, prefix=house.house.prefix)
    known = DueAttachments(house.services.pool, log)
    day_old = Ending(known, blobs, house.house.command_log)
    assert await day_old.sweep() == 0, "it may still be named"
    old = Ending(known, blobs, house.house.command_log, old_seconds=0)
    await until(lambda: _swept(old))
    await log.close()
    assert set(blobs_of(house, user)) == {f"{user}/{made['id']}.bin", f"{user}/snd_other.json"}


async def _swept(ending: Ending) -> bool:
    return await ending.sweep() > 0


# ── links ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_signed_link_opens_its_attachment_until_it_expires_and_nothing_else(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    account, key, user = whose
    made, other = [await uploaded(house, key, user, body) for body in (b"one", b"two")]
    now, keyset = datetime.now(UTC), house.services.keyset
    link = signed_link(keyset, made["id"], account, now + timedelta(minutes=5))
    assert (await content(house, link))[:2] == (200, b"one")
    assert (await content(house, link, Range="bytes=1-1"))[:2] == (206, b"n")
    expired = signed_link(keyset, made["id"], account, now - timedelta(seconds=1))
    assert (await asked(house, "GET", expired, None))[1]["code"] == "link_expired"
    foreign = signed_link(keyset, made["id"], "acc_other", now + timedelta(minutes=5))
    moment = re.search(r"expires=(\d+)", link)
    assert moment
    later = str(int(moment[1]) + 1)
    for tampered in (
        foreign,
        link.replace(made["id"], other["id"]),
        link.replace(made["id"], "att_" + "0" * 26),
        link.replace(made["id"], "att_x"),
        link.replace(moment[1], later),
        link.replace(moment[1], "+" + moment[1]),
        link.replace(moment[1], moment[1] + "%00"),
        expired.replace("expires=1", "expires=9"),
        link[:-1],
        link + "A",
        link.partition("&")[0],
        link.partition("?")[0] + "?" + link.partition("&")[2],
        link.partition("?")[0] + "?signature=",
        link.partition("signature=")[0] + "signature=%ff%00",
    ):
        status, problem, _ = await asked(house, "GET", tampered, None)
        assert (status, problem["code"]) == (403, "link_invalid"), tampered
    assert (await asked(house, "GET", link.replace("/content", ""), None))[0] == 401
    assert (await asked(house, "DELETE", link.replace("/content", ""), None))[0] == 401
