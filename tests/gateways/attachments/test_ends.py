"""How attachments end: deleted, in time, with their user; blobs that nothing has named; and links that open them."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO

from prometheus_client import CollectorRegistry

from domain.attachments import AttachmentUsed
from gateways.caught_up import CaughtUp
from gateways.http.v1.attachment_links import signed_link
from gateways.log.event_log import EventLog
from gateways.stores.due_attachments import DueAttachments
from handlers.attachments import Ending
from projections import attachments, sends
from schemas.ids import new_id
from tests.support.http_house import HttpHouse, bearer, served
from tests.support.uploads import BOUNDARY, UPLOAD, asked, blobs_of, content, form, sent, uploaded, use, whole
from tests.support.waiting import until

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


async def test_what_a_promised_send_names_is_kept_though_it_is_deleted_before_anybody_has_noted_that(
    house: HttpHouse, whose: tuple[str, str, str]
) -> None:
    account, key, user = whose
    made, other = await uploaded(house, key, user, b"to be sent"), await uploaded(house, key, user, b"another")
    row = (new_id("snd"), user, account, [made["id"]])
    await house.house.pool.execute(
        "insert into sends (send, user_id, owner, attachments, status, message_id, recipients, size, created_at, attempt, "
        "partition, position, body_digest) values ($1, $2, $3, $4, 'queued', 'm', 1, 1, now(), 0, 0, 0, 'd')",
        *row,
    )
    for one in (made, other):
        assert (await asked(house, "DELETE", f"/v1/attachments/{one['id']}", key))[0] == 204
    await until(lambda: _only(house, user, made["id"]))
    links = [
        signed_link(house.services.keyset, one["id"], account, datetime.now(UTC) + timedelta(minutes=5))
        for one in (made, other)
    ]
    assert (await content(house, links[0]))[:2] == (200, b"to be sent")
    assert (await asked(house, "GET", links[1], None))[1]["code"] == "gone"
    for ending in (f"/{made['id']}", f"/{made['id']}/content"):
        assert (await asked(house, "GET", f"/v1/attachments{ending}", key))[0] == 404
    assert (await asked(house, "GET", f"/v1/attachments?userId={user}", key))[1]["items"] == []
    assert await attachments.of_user(house.services.pool, account, user, [made["id"]]) == []


async def _only(house: HttpHouse, user: str, attachment: str) -> bool:
    return [blob.partition("/")[2].partition(".")[0] for blob in blobs_of(house, user)] == [attachment]


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
    for name in ("att_orphan.bin", "snd_orphan.message", "oth_other.json"):
        await blobs.put(f"{user}/{name}", BytesIO(b"x"), key_, b"")
    log = EventLog(house.house.kafka, prefix=house.house.prefix)
    tables = [
        CaughtUp(log, house.services.pool, projection=found.name, topic=found.topic)
        for found in (attachments.PROJECTION, sends.PROJECTION)
    ]
    known = DueAttachments(house.services.pool, *tables)
    day_old = Ending(known, blobs, house.house.command_log)
    assert await day_old.sweep() == 0, "it may still be named"
    old = Ending(known, blobs, house.house.command_log, old_seconds=0)
    await until(lambda: _swept(old))
    await log.close()
    assert set(blobs_of(house, user)) == {f"{user}/{made['id']}.bin", f"{user}/oth_other.json"}


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
        link.partition("signature=")[0] + "signature=%ff%00",
    ):
        status, problem, _ = await asked(house, "GET", tampered, None)
        assert (status, problem["code"]) == (403, "link_invalid"), tampered
    assert (await asked(house, "GET", link.replace("/content", ""), None))[0] == 401
    assert (await asked(house, "DELETE", link.replace("/content", ""), None))[0] == 401
