"""Users over real HTTP: making, finding and deleting them, and what is refused."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateways.http.v1.bodies import MOST_FAULTS
from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Decisions
from gateways.stores.sealing import place, unseal
from projections import users
from schemas import commands, events
from tests.support.connected import person
from tests.support.http_house import HttpHouse, bearer, http_house, served
from tests.support.servers import create_database, drop_database

Answer = tuple[int, dict[str, Any], Mapping[str, str]]


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"users_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def asked(house: HttpHouse, method: str, where: str, who: Any, **more: Any) -> Answer:
    headers = bearer(who) | more.pop("headers", {})
    async with house.http.request(method, house.url + where, headers=headers, **more) as answer:
        body = await answer.json(content_type=None) if answer.status not in {204, 304} else {}
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert body["status"] == answer.status
            assert body["detail"].endswith(".")
        return answer.status, body, answer.headers


async def code_of(house: HttpHouse, method: str, where: str, who: Any, **more: Any) -> tuple[int, str]:
    status, body, _ = await asked(house, method, where, who, **more)
    return status, body["code"]


async def faults_of(house: HttpHouse, key: str, **more: Any) -> list[str]:
    """The pointers of a refused creation."""
    status, body, _ = await asked(house, "POST", "/v1/users", key, **more)
    assert (status, body["code"]) == (400, "invalid_request"), body
    return [fault["pointer"] for fault in body["errors"]]


def body(**members: Any) -> dict[str, Any]:
    return {"email": f"{uuid.uuid4().hex}@example.org", "displayName": "Ada Lovelace"} | members


# ── making one ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_user_is_made_and_found(house: HttpHouse) -> None:
    _, key = await house.account()
    said = body(externalId="4711")
    status, made, headers = await asked(house, "POST", "/v1/users", key, json=said)
    assert status == 201
    assert re.fullmatch("usr_[0-9a-z]{26}", made["id"])
    assert {name: made[name] for name in said} == said
    assert set(made) == {"id", "email", "displayName", "externalId", "createdAt"}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["createdAt"])
    assert headers["Location"] == f"/v1/users/{made['id']}"
    assert headers["X-Log-Position"].startswith("account.events-")
    assert headers["Cache-Control"] == "no-store"
    seen = {"X-After-Position": headers["X-Log-Position"]}
    assert (await asked(house, "GET", headers["Location"], key, headers=seen))[:2] == (200, made)
    assert (await asked(house, "GET", "/v1/users", key, headers=seen))[1] == {"items": [made], "nextCursor": None}


async def test_what_is_kept_of_a_user_is_sealed_under_their_own_key(house: HttpHouse) -> None:
    account, key = await house.account()
    found = await person(house, account, key, email="Canary@example.org", displayName="Canary", externalId="canary-1")
    row = await users.by_id(house.services.pool, account, found.id)
    assert row is not None
    assert "anary" not in repr(row)
    data_key = (await house.services.keyring.get([found.id]))[found.id]
    for sealed, field, text in (
        (row.email, "email", "Canary@example.org"),
        (row.display_name, "displayName", "Canary"),
        (row.external_id, "externalId", "canary-1"),
    ):
        assert sealed is not None
        assert unseal(data_key, sealed, place("user", found.id, field)).decode() == text


async def test_an_address_and_an_external_id_are_one_users_alone_in_an_account(house: HttpHouse) -> None:
    (_, key), (_, other) = await house.account(), await house.account()
    said = body(email="Ada@Example.org", externalId="4711")
    _, made, _ = await asked(house, "POST", "/v1/users", key, json=said)
    before = await house.services.pool.fetchval("select count(*) from keyring")
    for again, code in (
        (body(email="aDA@eXAMPLE.ORG"), "email_taken"),
        (body(email="aDA@eXAMPLE.ORG", externalId="4711"), "email_taken"),
        (body(externalId="4711"), "external_id_taken"),
    ):
        status, problem, _ = await asked(house, "POST", "/v1/users", key, json=again)
        assert (status, problem["code"], problem["userId"]) == (409, code, made["id"])
    assert await house.services.pool.fetchval("select count(*) from keyring") == before
    assert (await asked(house, "POST", "/v1/users", other, json=said))[0] == 201
    assert (await asked(house, "POST", "/v1/users", key, json=body(externalId="4712")))[0] == 201
    assert (await asked(house, "POST", "/v1/users", key, json=body(externalId=None)))[0] == 201


async def test_of_twenty_that_race_for_an_address_one_gets_it(house: HttpHouse) -> None:
    _, key = await house.account()
    said = body()
    answers = await asyncio.gather(*(asked(house, "POST", "/v1/users", key, json=said) for _ in range(20)))
    (made,) = [found["id"] for status, found, _ in answers if status == 201]
    others = [found["userId"] for status, found, _ in answers if status == 409]
    assert others == [made] * 19


@pytest.mark.parametrize(
    "email",
    [
        "", " ", "ada", "ada@", "@example.org", "ada@@example.org", "ada @example.org", " ada@example.org",
        "ada@example.org ", "ada@exa mple.org", "ada@example..org", "Ada <ada@example.org>", "ada@example.org,b@c.org",
        "ada@example.org\r\nBcc: eve@evil.example", "ada@example.org\n", "ada\u2028@example.org", "a" * 65 + "@example.org",
        "a@" + "b" * 64 + ".org", "a@" + ".".join(["b" * 60] * 5), "ada@[300.1.1.1]", "ada\u202e@example.org",
        5, True, ["ada@example.org"], {"a": "b"}, None,
    ],
)  # fmt: skip
async def test_what_is_no_address_is_refused(house: HttpHouse, email: Any) -> None:
    _, key = await house.account()
    assert await faults_of(house, key, json=body(email=email)) == ["/email"]


@pytest.mark.parametrize("email", ["a@b.org", "Jörg@müller.example", "o'neil+tag@sub.example.org", "用户@例子.广告"])
async def test_an_address_is_given_back_as_it_was_written(house: HttpHouse, email: str) -> None:
    _, key = await house.account()
    status, made, _ = await asked(house, "POST", "/v1/users", key, json=body(email=email))
    assert (status, made["email"]) == (201, email)


async def test_everything_that_is_wrong_is_told_at_once(house: HttpHouse) -> None:
    _, key = await house.account()
    wrong = {"email": "ada", "displayName": "a\r\nBcc: b", "externalId": 7, "role": "admin", "a/b~c": 1}
    found = await faults_of(house, key, json=wrong, headers={"Idempotency-Key": "é"})
    assert sorted(found) == sorted(
        ["/email", "/displayName", "/externalId", "/role", "/a~1b~0c", "/headers/Idempotency-Key"]
    )
    assert sorted(await faults_of(house, key, json={})) == ["/displayName", "/email"]
    assert sorted(await faults_of(house, key)) == ["/displayName", "/email"]
    assert len(await faults_of(house, key, json=body() | {f"x{number}": 1 for number in range(5000)})) == MOST_FAULTS


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("displayName", ""), ("displayName", "  \u00a0"), ("displayName", "a" * 257), ("displayName", "a\nb"),
        ("displayName", "a\x7fb"), ("displayName", "a\u2029b"), ("displayName", None), ("displayName", 1),
        ("externalId", ""), ("externalId", "a" * 256), ("externalId", "a\tb"), ("externalId", ["a"]), ("externalId", 0),
    ],
)  # fmt: skip
async def test_a_member_that_is_not_valid_is_named(house: HttpHouse, member: str, value: Any) -> None:
    _, key = await house.account()
    assert await faults_of(house, key, json=body(**{member: value})) == [f"/{member}"]


@pytest.mark.parametrize(
    "text",
    ["[]", '"x"', "{", '{"a": NaN}', '{"email": "a@b.c", "email": "a@b.c"}', r'{"displayName": "\u0000"}',
     r'{"displayName": "\ud800"}', '{"a":' * 100 + "1" + "}" * 100, "\xff"],
)  # fmt: skip
async def test_a_body_that_is_no_json_object_is_refused(house: HttpHouse, text: str) -> None:
    _, key = await house.account()
    assert await faults_of(house, key, data=text.encode("latin-1")) == [""]


async def test_names_may_be_as_long_as_is_said(house: HttpHouse) -> None:
    _, key = await house.account()
    said = body(displayName="ä" * 256, externalId="ü" * 255)
    status, made, _ = await asked(house, "POST", "/v1/users", key, json=said)
    assert (status, made["displayName"], made["externalId"]) == (201, said["displayName"], said["externalId"])


# ── idempotency ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def create(house: HttpHouse, key: str, idempotency: str, **more: Any) -> tuple[int, dict[str, Any], bool]:
    status, found, headers = await asked(
        house, "POST", "/v1/users", key, headers={"Idempotency-Key": idempotency}, **more
    )
    return status, found, "Idempotency-Replayed" in headers


async def test_the_same_key_and_body_answer_the_same_and_say_so(house: HttpHouse) -> None:
    (_, key), (_, other) = await house.account(), await house.account()
    first = await create(house, key, "signup-1", data='{"email": "ada@example.org", "displayName": "Ada"}')
    assert (first[0], first[2]) == (201, False)
    again = await create(house, key, '"signup-1"', data='{"displayName":"\\u0041da","email":"ada@example.org"}')
    assert again == (*first[:2], True)
    status, problem, _ = await create(house, key, "signup-1", json=body())
    assert (status, problem["code"]) == (409, "idempotency_key_reused")
    status, elsewhere, replayed = await create(house, other, "signup-1", json=body())
    assert (status, replayed) == (201, False)
    assert elsewhere["id"] != first[1]["id"]


async def test_twenty_that_race_make_one_user_and_one_data_key(house: HttpHouse) -> None:
    _, key = await house.account()
    said, before = body(), await house.services.pool.fetchval("select count(*) from keyring")
    answers = await asyncio.gather(*(create(house, key, "race", json=said) for _ in range(20)))
    assert {status for status, _, _ in answers} == {201}
    assert len({found["id"] for _, found, _ in answers}) == 1
    assert sum(not replayed for _, _, replayed in answers) == 1
    assert await house.services.pool.fetchval("select count(*) from keyring") == before + 1


async def test_a_replay_for_a_user_who_was_deleted_says_so_and_makes_no_other(house: HttpHouse) -> None:
    _, key = await house.account()
    said = body()
    _, made, _ = await create(house, key, "signup-1", json=said)
    assert (await asked(house, "DELETE", f"/v1/users/{made['id']}", key))[0] == 204
    status, problem, _ = await create(house, key, "signup-1", json=said)
    assert (status, problem["code"]) == (410, "gone")
    assert (await asked(house, "GET", "/v1/users", key))[1]["items"] == []


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_list_is_paged_by_a_cursor_that_nothing_new_shifts(house: HttpHouse) -> None:
    account, key = await house.account()
    newest_first = [(await person(house, account, key)).id for _ in range(5)][::-1]
    where, seen = "/v1/users?limit=2", []
    for _ in range(3):
        _, page, _ = await asked(house, "GET", where, key)
        seen += [found["id"] for found in page["items"]]
        where = f"/v1/users?limit=2&cursor={page['nextCursor']}"
        await person(house, account, key)
    assert (seen, page["nextCursor"]) == (newest_first, None)
    for query in ("?limit=8", "?limit=1000000000000000000", ""):
        _, page, _ = await asked(house, "GET", f"/v1/users{query}", key)
        assert (len(page["items"]), page["nextCursor"]) == (8, None)


async def test_a_list_that_has_not_changed_is_not_sent_again(house: HttpHouse) -> None:
    account, key = await house.account()
    await person(house, account, key)
    _, _, headers = await asked(house, "GET", "/v1/users", key)
    same = {"If-None-Match": headers["ETag"]}
    assert (await asked(house, "GET", "/v1/users", key, headers=same))[0] == 304
    await person(house, account, key)
    assert (await asked(house, "GET", "/v1/users", key, headers=same))[0] == 200


async def test_a_user_is_found_by_address_in_any_case_and_by_external_id(house: HttpHouse) -> None:
    (account, key), (_, other) = await house.account(), await house.account()
    ada = await person(house, account, key, email="Ada@example.org", externalId="Nr. 1&2")
    await person(house, account, key, externalId="nr. 1&2")
    for query, found in (
        ({"email": "aDa@EXAMPLE.org"}, [ada.id]),
        ({"externalId": "Nr. 1&2"}, [ada.id]),
        ({"email": "ada@example.org", "externalId": "Nr. 1&2"}, [ada.id]),
        ({"email": "ada@example.org", "externalId": "nr. 1&2"}, []),
        ({"email": "nobody"}, []),
        ({"externalId": "\0\ud800".encode("utf-8", "replace").decode()}, []),
        ({"email": ""}, []),
    ):
        _, page, _ = await asked(house, "GET", "/v1/users", key, params=query)
        assert [one["id"] for one in page["items"]] == found, query
    assert (await asked(house, "GET", "/v1/users?email=ada@example.org", other))[1]["items"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "cursor=", "cursor=!", "cursor=Y29u", "cursor=%00"]
)
async def test_a_parameter_that_is_not_valid_is_named(house: HttpHouse, query: str) -> None:
    _, key = await house.account()
    status, problem, _ = await asked(house, "GET", f"/v1/users?{query}", key)
    assert (status, problem["code"]) == (400, "invalid_request")
    assert problem["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"
    status, problem, _ = await asked(house, "GET", "/v1/users?limit=0&cursor=!", key)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/query/limit", "/query/cursor"]


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_user_is_gone_and_what_was_theirs_is_free_again(house: HttpHouse) -> None:
    account, key = await house.account()
    ada = await person(house, account, key, email="ada@example.org", externalId="4711")
    status, _, headers = await asked(house, "DELETE", f"/v1/users/{ada.id}", key)
    assert status == 204
    assert headers["X-Log-Position"].startswith("account.events-")
    for method in ("GET", "DELETE"):
        assert await code_of(house, method, f"/v1/users/{ada.id}", key) == (404, "not_found")
    assert (await asked(house, "GET", "/v1/users?email=ada@example.org", key))[1]["items"] == []
    again = await person(house, account, key, email="ADA@example.org", externalId="4711")
    assert again.id != ada.id
    async with asyncio.timeout(10):
        while await house.services.pool.fetchval("select count(*) from keyring where subject = $1", ada.id):
            await asyncio.sleep(0.02)


async def test_who_deletes_a_user_ten_times_at_once_has_done_it_once(house: HttpHouse) -> None:
    account, key = await house.account()
    ada = await person(house, account, key)
    answers = await asyncio.gather(*(asked(house, "DELETE", f"/v1/users/{ada.id}", key) for _ in range(10)))
    assert sorted(status for status, _, _ in answers) == [204] + [404] * 9


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_token_is_no_api_key(house: HttpHouse) -> None:
    box = await house.mailbox()
    for method, where in (
        ("GET", "/v1/users"),
        ("POST", "/v1/users"),
        ("GET", "/v1/users/usr_x"),
        ("DELETE", "/v1/users/x"),
    ):
        assert await code_of(house, method, where, box) == (403, "api_key_required")
        assert await code_of(house, method, where, None) == (401, "credentials_missing")


async def test_the_user_of_another_account_is_as_absent_as_one_that_never_was(house: HttpHouse) -> None:
    (account, key), (_, stranger) = await house.account(), await house.account()
    ada = await person(house, account, key)
    for method in ("GET", "DELETE"):
        heard = []
        for user in (ada.id, "usr_" + "0" * 26, "usr_x", "%00", "con_" + ada.id[4:], ada.id.upper()):
            status, problem, _ = await asked(house, method, f"/v1/users/{user}", stranger)
            heard.append((status, {k: v for k, v in problem.items() if k not in ("instance", "request_id")}))
        assert heard == [heard[0]] * len(heard)
        assert heard[0][0] == 404
    assert (await asked(house, "GET", "/v1/users", stranger))[1]["items"] == []
    assert (await asked(house, "GET", f"/v1/users/{ada.id}", key))[0] == 200


async def test_a_position_is_waited_for_or_refused(house: HttpHouse) -> None:
    _, key = await house.account()
    after = {"X-After-Position": "account.events-0:999999"}
    assert await code_of(house, "GET", "/v1/users", key, headers=after) == (503, "outcome_unknown")
    assert await code_of(house, "GET", "/v1/users", key, headers={"X-After-Position": "x"}) == (400, "invalid_request")


async def test_the_dead_log_is_told_and_no_data_key_is_left(house: HttpHouse) -> None:
    _, key = await house.account()
    dead = CommandLog(f"127.0.0.1:{free_port()}")
    decisions = Decisions(dead, house.house.tail, house.house.folded, commands=commands.ACCOUNT, events=events.ACCOUNT)
    before = await house.services.pool.fetchval("select count(*) from keyring")
    services = replace(house.services, account_decisions=decisions, metrics=CollectorRegistry())
    async with (
        served(services) as url,
        house.http.post(f"{url}/v1/users", headers=bearer(key), json=body()) as answer,
    ):
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (503, "unavailable")
    assert await house.services.pool.fetchval("select count(*) from keyring") == before
