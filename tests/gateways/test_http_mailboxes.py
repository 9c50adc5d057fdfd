"""Temporary inboxes over real HTTP: opening, listing, extending and deleting them, and who may."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from domain.plans import ANONYMOUS_PLAN, BUILT_IN
from gateways.local_servers import Servers
from tests.support.http_house import HttpHouse, bearer, http_house, path
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"http_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def test_anybody_opens_an_inbox_in_one_call(house: HttpHouse) -> None:
    async with house.http.post(f"{house.url}/api/v1/mailboxes?ttl_minutes=30") as answer:
        said = await answer.json()
        assert answer.status == 201
        assert answer.headers["X-Log-Position"].startswith("mailbox.events-")
        assert answer.headers["Location"] == f"/api/v1/mailboxes/{said['address']}"
        assert answer.headers["Cache-Control"] == "no-store"
    assert set(said) == {"address", "expires_at", "session_token"}
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-z]{8}@mail\.example", said["address"])
    assert said["session_token"].startswith("uct_")
    assert said["expires_at"].endswith("+00:00")
    left = datetime.fromisoformat(said["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)


async def status_of(house: HttpHouse, method: str, where: str, **more: Any) -> int:
    async with house.http.request(method, house.url + where, **more) as answer:
        await answer.read()
        return answer.status


async def code_of(house: HttpHouse, method: str, where: str, **more: Any) -> tuple[int, str]:
    """Status and code of a refusal, which is a whole problem."""
    async with house.http.request(method, house.url + where, **more) as answer:
        assert answer.content_type == "application/problem+json"
        problem = await answer.json(content_type=None)
        assert problem["status"] == answer.status
        assert problem["type"] == f"/docs/problems#{problem['code']}"
        assert problem["detail"].endswith(".")
        assert problem["request_id"] == answer.headers["X-Request-Id"]
        assert problem["instance"] == where.partition("?")[0]
        return answer.status, problem["code"]


async def test_a_longer_life_than_the_plan_allows_is_capped_silently(house: HttpHouse) -> None:
    box = await house.mailbox(query="?ttl_minutes=" + "9" * 300)
    assert datetime.fromisoformat(box["expires_at"]) - datetime.now(UTC) <= timedelta(minutes=60)


async def test_a_changed_plan_holds_for_what_is_opened_afterwards(house: HttpHouse) -> None:
    async def minutes() -> int:
        box = await house.mailbox()
        return round((datetime.fromisoformat(box["expires_at"]) - datetime.now(UTC)) / timedelta(minutes=1))

    free = BUILT_IN[ANONYMOUS_PLAN].limits
    before = await minutes()
    await house.plan(ANONYMOUS_PLAN, **(asdict(free) | {"default_ttl_minutes": 7}))
    changed = await minutes()
    await house.plan(ANONYMOUS_PLAN, **asdict(free))
    assert (before, changed, await minutes()) == (60, 7, 60)


@pytest.mark.parametrize("ttl", ["0", "-1", "1.5", "1e3", "", "ten", "%00", "٣", "9" * 5000, "+5", "1_0"])
async def test_a_life_that_is_no_positive_whole_number_is_refused(house: HttpHouse, ttl: str) -> None:
    async with house.http.post(f"{house.url}/api/v1/mailboxes?ttl_minutes={ttl}") as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/query/ttl_minutes"


async def test_an_accounts_inboxes_are_listed_newest_first_to_its_keys_alone(house: HttpHouse) -> None:
    (_, key), (_, other) = await house.account(), await house.account()
    boxes = [await house.mailbox(key) for _ in range(3)]
    async with house.http.get(f"{house.url}/api/v1/mailboxes", headers=bearer(key)) as answer:
        listed = await answer.json()
    assert [one["address"] for one in listed] == [box["address"] for box in reversed(boxes)]
    assert all(set(one) == {"address", "expires_at", "created_at"} for one in listed)
    async with house.http.get(f"{house.url}/api/v1/mailboxes", headers=bearer(other)) as answer:
        assert await answer.json() == []


async def test_a_list_of_inboxes_is_paged(house: HttpHouse) -> None:
    _, key = await house.account()
    newest_first = [box["address"] for box in reversed([await house.mailbox(key) for _ in range(5)])]
    for query, expected in (
        ("?limit=2", newest_first[:2]),
        ("?limit=2&offset=2", newest_first[2:4]),
        ("?offset=4", newest_first[4:]),
        ("?offset=9007199254740993", []),
        ("?limit=1000000000000000000000000", newest_first),
    ):
        async with house.http.get(f"{house.url}/api/v1/mailboxes{query}", headers=bearer(key)) as answer:
            assert answer.status == 200
            assert [one["address"] for one in await answer.json()] == expected
    for query in ("limit=0", "limit=-1", "limit=x", "limit=", "offset=-1", "offset=1.0"):
        async with house.http.get(f"{house.url}/api/v1/mailboxes?{query}", headers=bearer(key)) as answer:
            problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"]) == (422, "invalid_request")
        assert problem["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"


async def test_a_list_of_inboxes_that_has_not_changed_is_not_sent_again(house: HttpHouse) -> None:
    _, key = await house.account()
    await house.mailbox(key)
    where = f"{house.url}/api/v1/mailboxes"
    async with house.http.get(where, headers=bearer(key)) as answer:
        etag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "private, no-cache"
    same = bearer(key) | {"If-None-Match": etag}
    async with house.http.get(where, headers=same) as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", etag)
    async with house.http.get(f"{where}?offset=1", headers=same) as answer:
        assert (answer.status, await answer.json()) == (200, [])
    await house.mailbox(key)
    async with house.http.get(where, headers=same) as answer:
        assert (answer.status, len(await answer.json())) == (200, 2)
        assert answer.headers["ETag"] != etag


async def test_a_session_token_lists_its_own_inbox(house: HttpHouse) -> None:
    box = await house.mailbox()
    async with house.http.get(f"{house.url}/api/v1/mailboxes", headers=bearer(box)) as answer:
        assert [one["address"] for one in await answer.json()] == [box["address"]]


async def test_a_full_plan_is_refused_with_its_numbers_and_has_room_again_after_a_deletion(house: HttpHouse) -> None:
    account, key = await house.account()
    await house.assign(account, await house.plan(live_mailboxes=2))
    await asyncio.sleep(3.1)  # a key's holder is remembered for three seconds
    first, _ = await house.mailbox(key), await house.mailbox(key)
    async with house.http.post(f"{house.url}/api/v1/mailboxes", headers=bearer(key)) as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"], problem["limit"], problem["used"]) == (403, "plan_limit_mailboxes", 2, 2)
    assert await status_of(house, "DELETE", path(first), headers=bearer(key)) == 204
    await house.mailbox(key)


async def keys_of_mailboxes(house: HttpHouse) -> set[str]:
    """Whose data keys there are, without those in stock."""
    await house.services.key_stock.close()
    return {row["subject"] for row in await house.services.pool.fetch("select subject from keyring")}


async def test_a_refused_creation_leaves_no_data_key_behind(house: HttpHouse) -> None:
    account, key = await house.account()
    await house.assign(account, await house.plan(live_mailboxes=1))
    await asyncio.sleep(3.1)  # as above
    await house.mailbox(key)
    before = await keys_of_mailboxes(house)
    assert await code_of(house, "POST", "/api/v1/mailboxes", headers=bearer(key)) == (403, "plan_limit_mailboxes")
    assert await keys_of_mailboxes(house) == before


async def test_a_deleted_inbox_is_gone_for_its_owner_and_not_there_for_others(house: HttpHouse) -> None:
    box, other = await house.mailbox(), await house.mailbox()
    assert await status_of(house, "DELETE", path(box), headers=bearer(box)) == 204
    for method, tail in (("GET", "/messages"), ("DELETE", ""), ("GET", ""), ("POST", "/extend?ttl_minutes=5")):
        assert await code_of(house, method, path(box) + tail, headers=bearer(box)) == (410, "mailbox_ended")
        assert await code_of(house, method, path(box) + tail, headers=bearer(other)) == (404, "not_found")


async def test_an_inbox_that_has_expired_is_gone_by_the_clock(house: HttpHouse) -> None:
    """Whether or not the event has been written: nothing but the time in the row was changed here."""
    box = await house.mailbox()
    mailbox = house.services.keyset.mailbox_of_token(box["session_token"])
    await house.services.pool.execute(
        "update mailboxes set expires_at = now() - interval '1 ms' where mailbox = $1", mailbox
    )
    for tail in ("", "/messages"):
        assert await code_of(house, "GET", path(box) + tail, headers=bearer(box)) == (410, "mailbox_ended")
    assert await code_of(house, "GET", "/api/v1/mailboxes", headers=bearer(box)) == (410, "mailbox_ended")


async def test_an_inbox_lives_longer_as_far_as_its_plan_allows_and_never_shorter(house: HttpHouse) -> None:
    _, key = await house.account("pro")
    box = await house.mailbox(key, "?ttl_minutes=10")
    async with house.http.post(f"{house.url}{path(box)}/extend?ttl_minutes=30", headers=bearer(box)) as answer:
        longer = await answer.json()
        assert answer.status == 200
    assert longer["address"] == box["address"]
    assert longer["expires_at"] > box["expires_at"]
    async with house.http.post(f"{house.url}{path(box)}/extend?ttl_minutes=1", headers=bearer(box)) as answer:
        assert await answer.json() == longer
    where = path(box) + "/extend"
    assert await code_of(house, "POST", where, headers=bearer(box)) == (422, "invalid_request")
    assert await code_of(house, "POST", where + "?ttl_minutes=0", headers=bearer(box)) == (422, "invalid_request")


# ── idempotency ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def create(house: HttpHouse, key: str, idempotency: str, query: str = "") -> tuple[int, dict[str, Any], bool]:
    headers = bearer(key) | {"Idempotency-Key": idempotency}
    async with house.http.post(f"{house.url}/api/v1/mailboxes{query}", headers=headers) as answer:
        return answer.status, await answer.json(content_type=None), "Idempotency-Replayed" in answer.headers


async def test_the_same_key_and_request_answer_the_same_and_say_so(house: HttpHouse) -> None:
    _, key = await house.account()
    first = await create(house, key, "order-1", "?ttl_minutes=30")
    assert first[0] == 201
    assert not first[2]
    assert await create(house, key, '"order-1"', "?ttl_minutes=30") == (*first[:2], True)


async def test_the_same_key_for_another_request_is_a_conflict(house: HttpHouse) -> None:
    _, key = await house.account()
    await create(house, key, "order-1", "?ttl_minutes=30")
    status, problem, _ = await create(house, key, "order-1", "?ttl_minutes=31")
    assert (status, problem["code"]) == (409, "idempotency_key_reused")


async def test_twenty_that_race_make_one_inbox(house: HttpHouse) -> None:
    _, key = await house.account()
    answers = await asyncio.gather(*(create(house, key, "race") for _ in range(20)))
    assert {status for status, _, _ in answers} == {201}
    assert len({said["address"] for _, said, _ in answers}) == 1
    assert sum(not replayed for _, _, replayed in answers) == 1


async def test_another_account_may_use_the_same_key(house: HttpHouse) -> None:
    (_, key), (_, other) = await house.account(), await house.account()
    assert (await create(house, key, "order-1"))[1]["address"] != (await create(house, other, "order-1"))[1]["address"]


async def test_an_anonymous_idempotency_key_is_ignored(house: HttpHouse) -> None:
    boxes = []
    for _ in range(2):
        async with house.http.post(f"{house.url}/api/v1/mailboxes", headers={"Idempotency-Key": "a"}) as answer:
            boxes.append((await answer.json())["address"])
    assert boxes[0] != boxes[1]


@pytest.mark.parametrize(("length", "status"), [(1, 201), (254, 201), (255, 201), (256, 422)])
async def test_an_idempotency_key_has_255_characters_at_most(house: HttpHouse, length: int, status: int) -> None:
    _, key = await house.account()
    assert (await create(house, key, "k" * length))[0] == status


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────────

MALFORMED = [
    "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "pl_live_x", "Bearer pl_live_unknown", "Bearer uct_", "Bearer uct_x y",
    "Bearer \u00e4", "Bearer pl_test_1", "Token uct_1", "Bearer uct_" + "0" * 69,
]  # fmt: skip


@pytest.mark.parametrize("authorization", MALFORMED)
async def test_credentials_that_are_none_are_refused(house: HttpHouse, authorization: str) -> None:
    headers = {"Authorization": authorization}
    for method in ("GET", "POST"):
        assert await code_of(house, method, "/api/v1/mailboxes", headers=headers) == (401, "credentials_invalid")


async def test_without_credentials_nothing_is_shown(house: HttpHouse) -> None:
    box = await house.mailbox()
    for where in ("/api/v1/mailboxes", path(box), path(box) + "/messages"):
        async with house.http.get(house.url + where) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_credentials_in_the_query_are_no_credentials_here(house: HttpHouse) -> None:
    box = await house.mailbox()
    assert await status_of(house, "GET", f"{path(box)}/messages?token={box['session_token']}") == 401


async def test_a_session_token_opens_no_other_inbox(house: HttpHouse) -> None:
    box = await house.mailbox()
    assert await code_of(house, "POST", "/api/v1/mailboxes", headers=bearer(box)) == (403, "api_key_required")


async def test_a_stranger_hears_the_same_of_an_inbox_as_of_none(house: HttpHouse) -> None:
    (_, key), box = await house.account(), await house.mailbox()
    heard = []
    for address in (box["address"], "no-such-00000000@mail.example"):
        async with house.http.get(f"{house.url}/api/v1/mailboxes/{address}/messages", headers=bearer(key)) as answer:
            problem = await answer.json(content_type=None)
            heard.append((answer.status, {k: v for k, v in problem.items() if k not in ("instance", "request_id")}))
    assert heard[0] == heard[1]


async def test_an_address_is_found_in_any_case(house: HttpHouse) -> None:
    box = await house.mailbox()
    assert (
        await status_of(house, "GET", path(box).replace(box["address"], box["address"].upper()), headers=bearer(box))
        == 200
    )


async def test_a_revoked_key_is_dead_within_five_seconds(house: HttpHouse) -> None:
    account, key = await house.account()
    assert await status_of(house, "GET", "/api/v1/mailboxes", headers=bearer(key)) == 200
    key_id = await house.services.pool.fetchval("select key from api_keys where account = $1", account)
    await house.revoke(account, key_id)
    async with asyncio.timeout(5):
        while await status_of(house, "GET", "/api/v1/mailboxes", headers=bearer(key)) != 401:
            await asyncio.sleep(0.1)


async def test_a_page_of_another_origin_may_not_use_an_api_key(house: HttpHouse) -> None:
    (_, key), own = await house.account(), {"Origin": house.url}
    foreign = {"Origin": "https://evil.example"}
    where = "/api/v1/mailboxes"
    assert await code_of(house, "GET", where, headers=bearer(key) | foreign) == (403, "foreign_origin")
    assert await code_of(house, "POST", where, headers=bearer(key) | {"Origin": "null"}) == (403, "foreign_origin")
    assert await code_of(house, "GET", where, headers=bearer(key) | {"Origin": "http://[x"}) == (403, "foreign_origin")
    assert await status_of(house, "GET", where, headers=bearer(key) | own) == 200
    box = await house.mailbox()
    assert await status_of(house, "GET", where, headers=bearer(box) | foreign) == 200


# ── positions and traces ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_read_waits_for_the_position_it_was_asked_to_have_seen(house: HttpHouse) -> None:
    box = await house.mailbox()
    async with house.http.get(
        house.url + path(box), headers=bearer(box) | {"X-After-Position": "mailbox.events-0:1"}
    ) as seen:
        assert seen.status == 200
    for garbage in ("x", "mailbox.events", "mailbox.commands-0:1", "mailbox.events-0:-1"):
        headers = bearer(box) | {"X-After-Position": garbage}
        assert await code_of(house, "GET", path(box), headers=headers) == (422, "invalid_request")


async def test_a_position_that_does_not_come_is_told_so_after_two_seconds(house: HttpHouse) -> None:
    box = await house.mailbox()
    headers = bearer(box) | {"X-After-Position": "mailbox.events-0:999999"}
    assert await code_of(house, "GET", path(box), headers=headers) == (503, "outcome_unknown")


async def test_the_trace_of_a_request_is_that_of_what_it_causes(house: HttpHouse, servers: Servers) -> None:
    trace = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def hear(record: Any, cause: str) -> None:
        found = dict(record.headers).get("traceparent")
        if found == trace.encode() and not heard.done():
            heard.set_result(found)

    stop = house.services.tail.listen(hear)
    async with house.http.post(f"{house.url}/api/v1/mailboxes", headers={"traceparent": trace}) as answer:
        assert answer.status == 201
    async with asyncio.timeout(5):
        await heard
    stop()


async def test_the_dead_log_is_told_and_nothing_is_promised(house: HttpHouse) -> None:
    """No broker behind the command log: a definite no, and no data key is left."""
    from dataclasses import replace

    from gateways.local_ports import free_port
    from gateways.log.command_log import CommandLog
    from gateways.log.decisions import Decisions
    from schemas import commands, events
    from tests.support.http_house import served

    dead = CommandLog(f"127.0.0.1:{free_port()}")
    tail, folded = house.house.tail, house.house.folded
    decisions = Decisions(dead, tail, folded, commands=commands.MAILBOX, events=events.MAILBOX)
    before = await keys_of_mailboxes(house)
    services = replace(house.services, command_log=dead, decisions=decisions, metrics=CollectorRegistry())
    async with served(services) as url, house.http.post(f"{url}/api/v1/mailboxes") as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert await keys_of_mailboxes(house) == before


async def test_a_connection_can_be_used_again_after_every_refusal(house: HttpHouse) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as one:
        for _ in range(3):
            async with one.get(f"{house.url}/api/v1/mailboxes") as answer:
                assert answer.status == 401
                assert answer.headers.get("Connection") != "close"
