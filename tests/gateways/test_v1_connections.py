"""Connections over real HTTP: what is shown of them, and ending one. They are made by asking the decider."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from domain.connection import CAUSES
from domain.connection_commands import ReportRefresh, ReportUse, RevokeConnection
from domain.connection_events import Call, ReauthCode, RefreshCode
from gateways.http.v1.last_errors import MESSAGES, OPERATOR, RECONNECT
from gateways.local_servers import Servers
from tests.support.connected import READS, SENDS, Person, person
from tests.support.http_house import HttpHouse, bearer, http_house
from tests.support.servers import create_database, drop_database

MEMBERS = {
    "id", "userId", "provider", "account", "scopes", "missingScopes", "state", "tokenExpiresAt", "connectedAt",
    "lastUsedAt", "lastError",
}  # fmt: skip
NOBODY = "con_" + "0" * 26


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"connections_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def somebody(house: HttpHouse) -> Person:
    """A user of an account of their own."""
    account, key = await house.account()
    return await person(house, account, key)


async def asked(
    house: HttpHouse, method: str, where: str, who: Any, **headers: str
) -> tuple[int, Any, Mapping[str, str]]:
    async with house.http.request(method, house.url + where, headers=bearer(who) | headers) as answer:
        body = await answer.json(content_type=None) if answer.status not in {204, 304} else {}
        return answer.status, body, answer.headers


async def shown(found: Person, connection: str) -> dict[str, Any]:
    status, body, headers = await asked(found.house, "GET", f"/v1/connections/{connection}", found.key)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert set(body) == MEMBERS
    return dict(body)


async def listed(found: Person, query: str = "") -> list[str]:
    status, body, _ = await asked(found.house, "GET", f"/v1/connections{query}", found.key)
    assert (status, set(body)) == (200, {"items", "nextCursor"})
    return [one["id"] for one in body["items"]]


def report(found: Person, connection: str, outcome: Any, code: Any = None, *, version: int = 1) -> ReportRefresh:
    return ReportRefresh(connection, found.id, version, outcome, "timer", code=code)


# ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_connection_is_shown_as_it_is(house: HttpHouse) -> None:
    ada = await somebody(house)
    connection = await ada.connect("Ada@Gmail.example", scopes=(SENDS,))
    found = await shown(ada, connection)
    assert found | {"connectedAt": "", "tokenExpiresAt": ""} == {
        "id": connection,
        "userId": ada.id,
        "provider": "gmail",
        "account": "Ada@Gmail.example",
        "scopes": [SENDS],
        "missingScopes": [READS],
        "state": "active",
        "tokenExpiresAt": "",
        "connectedAt": "",
        "lastUsedAt": None,
        "lastError": None,
    }
    for name in ("connectedAt", "tokenExpiresAt"):
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found[name])
    _, page, _ = await asked(house, "GET", "/v1/connections", ada.key)
    assert page == {"items": [found], "nextCursor": None}


async def test_when_it_was_used_last_is_shown(house: HttpHouse) -> None:
    ada = await somebody(house)
    connection, at = await ada.connect(), datetime(2026, 3, 13, 15, 30, tzinfo=UTC)
    await ada.command(connection, ReportUse(connection, ada.id, [Call(at, "send", "deliver", "snd_x", "ok")]))
    assert (await shown(ada, connection))["lastUsedAt"] == "2026-03-13T15:30:00.000Z"


async def test_the_last_error_says_what_happened_and_what_to_do(house: HttpHouse) -> None:
    ada = await somebody(house)
    connection = await ada.connect()
    for outcome, code, state in (
        ("transient", "timed_out", "active"),
        ("client_broken", "client_secret_expired", "active"),
        ("reauth_required", "invalid_grant", "reauth_required"),
    ):
        await ada.command(connection, report(ada, connection, outcome, code))
        found = await shown(ada, connection)
        assert (found["state"], found["lastError"]["code"]) == (state, code)
        assert found["lastError"]["message"] == MESSAGES[code]
        assert found["lastError"]["at"].endswith("Z")
        assert set(found["lastError"]) == {"code", "message", "at"}
    await ada.connect(connection=connection, version=2)
    found = await shown(ada, connection)
    assert (found["state"], found["lastError"]) == ("active", None)


def test_every_code_has_its_sentences() -> None:
    assert set(MESSAGES) == {*get_args(RefreshCode), *get_args(ReauthCode)}
    for code, message in MESSAGES.items():
        assert len(re.findall(r"\.(?: |$)", message)) == 2, code
        assert message.endswith(RECONNECT) == (code in CAUSES)
        assert message.endswith(OPERATOR) == ("client" in code)


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_list_shows_what_is_asked_for(house: HttpHouse) -> None:
    ada = await somebody(house)
    bob = await person(house, ada.account, ada.key)
    gmail, outlook = await ada.connect(), await ada.connect("ada@corp.example", provider="outlook")
    dead, over = await bob.connect("b@corp.example", provider="smtp"), await bob.connect()
    await bob.command(dead, report(bob, dead, "reauth_required", "login_failed"))
    await bob.command(over, RevokeConnection(over, bob.id, "caller"))
    for query, expected in (
        ("", [dead, outlook, gmail]),
        ("?state=all", [over, dead, outlook, gmail]),
        ("?state=active", [outlook, gmail]),
        ("?state=reauth_required", [dead]),
        ("?state=revoked", [over]),
        (f"?userId={ada.id}", [outlook, gmail]),
        (f"?userId={bob.id}&state=all", [over, dead]),
        (f"?userId={ada.id}&provider=outlook", [outlook]),
        ("?provider=smtp", [dead]),
        ("?userId=usr_" + "0" * 26, []),
        ("?userId=%00", []),
        ("?userId=", []),
    ):
        assert await listed(ada, query) == expected, query


async def test_a_list_is_paged_by_a_cursor(house: HttpHouse) -> None:
    ada = await somebody(house)
    newest_first = [await ada.connect(f"ada{number}@gmail.example") for number in range(5)][::-1]
    where, seen = "/v1/connections?limit=2", []
    for _ in range(3):
        _, page, _ = await asked(house, "GET", where, ada.key)
        seen += [found["id"] for found in page["items"]]
        where = f"/v1/connections?limit=2&cursor={page['nextCursor']}"
        await ada.connect(f"{uuid.uuid4().hex}@gmail.example")
    assert (seen, page["nextCursor"]) == (newest_first, None)


async def test_a_list_that_has_not_changed_is_not_sent_again(house: HttpHouse) -> None:
    ada = await somebody(house)
    connection = await ada.connect()
    _, _, headers = await asked(house, "GET", "/v1/connections", ada.key)
    same = {"If-None-Match": headers["ETag"]}
    assert (await asked(house, "GET", "/v1/connections", ada.key, **same))[0] == 304
    await ada.command(connection, report(ada, connection, "transient", "unreachable"))
    assert (await asked(house, "GET", "/v1/connections", ada.key, **same))[0] == 200


async def test_all_that_is_wrong_with_a_query_is_told_at_once(house: HttpHouse) -> None:
    ada = await somebody(house)
    query = "?provider=yahoo&state=dead&limit=0&cursor=x"
    status, problem, _ = await asked(house, "GET", f"/v1/connections{query}", ada.key)
    assert (status, problem["code"]) == (400, "invalid_request")
    pointers = [fault["pointer"] for fault in problem["errors"]]
    assert pointers == ["/query/provider", "/query/state", "/query/limit", "/query/cursor"]


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_revoked_connection_is_over_and_can_still_be_looked_at(house: HttpHouse) -> None:
    ada = await somebody(house)
    connection = await ada.connect()
    status, _, headers = await asked(house, "DELETE", f"/v1/connections/{connection}", ada.key)
    assert status == 204
    assert headers["X-Log-Position"].startswith("connection.events-")
    found = await shown(ada, connection)
    assert (found["state"], found["account"]) == ("revoked", "ada@gmail.example")
    assert await listed(ada) == []
    assert await listed(ada, "?state=all") == [connection]
    assert (await asked(house, "DELETE", f"/v1/connections/{connection}", ada.key))[0] == 204
    gone = "select at_provider from connections where connection = $1"
    async with asyncio.timeout(20):
        while await house.house.pool.fetchval(gone, connection) is None:
            await asyncio.sleep(0.05)  # the decider forgets it then
    assert (await asked(house, "DELETE", f"/v1/connections/{connection}", ada.key))[0] == 204
    assert await shown(ada, connection) == found
    assert await ada.connect() != connection


async def test_of_ten_that_revoke_at_once_each_has_what_it_wished(house: HttpHouse) -> None:
    ada = await somebody(house)
    connection = await ada.connect()
    where, requested = f"/v1/connections/{connection}", []
    tail = house.services.tail
    assert tail is not None
    stop = tail.listen(lambda record, _: requested.append(dict(record.headers).get("ce_type")))
    answers = await asyncio.gather(*(asked(house, "DELETE", where, ada.key) for _ in range(10)))
    stop()
    assert {status for status, _, _ in answers} == {204}
    assert requested.count(b"connection.revocation-requested.v1") == 1
    position = max((headers["X-Log-Position"] for _, _, headers in answers), key=lambda text: int(text.split(":")[1]))
    _, found, _ = await asked(house, "GET", where, ada.key, **{"X-After-Position": position})
    assert found["state"] == "revoked"


async def test_the_connections_of_a_deleted_user_are_gone_at_once_and_revoked_soon(house: HttpHouse) -> None:
    ada = await somebody(house)
    bob = await person(house, ada.account, ada.key)
    connection, other = await ada.connect(), await bob.connect()
    assert (await asked(house, "DELETE", f"/v1/users/{ada.id}", ada.key))[0] == 204
    for method in ("GET", "DELETE"):
        assert (await asked(house, method, f"/v1/connections/{connection}", ada.key))[0] == 404
    assert await listed(bob, "?state=all") == [other]
    state = "select state from connections where connection = $1"
    async with asyncio.timeout(10):
        while await house.services.pool.fetchval(state, connection) != "revoked":
            await asyncio.sleep(0.02)


async def test_a_connection_that_cannot_be_opened_keeps_no_list_from_its_reader(house: HttpHouse) -> None:
    ada = await somebody(house)
    bob = await person(house, ada.account, ada.key)
    connection, other = await ada.connect(), await bob.connect()
    await house.services.keyring.destroy(ada.id)
    assert await listed(bob) == [other]
    assert (await asked(house, "GET", f"/v1/connections/{connection}", ada.key))[0] == 404


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_token_is_no_api_key(house: HttpHouse) -> None:
    box = await house.mailbox()
    for method, where in (
        ("GET", "/v1/connections"),
        ("GET", f"/v1/connections/{NOBODY}"),
        ("DELETE", f"/v1/connections/{NOBODY}"),
    ):
        status, problem, _ = await asked(house, method, where, box)
        assert (status, problem["code"]) == (403, "api_key_required")
        assert (await asked(house, method, where, None))[0] == 401


async def test_the_connection_of_another_account_is_as_absent_as_one_that_never_was(house: HttpHouse) -> None:
    ada, eve = await somebody(house), await somebody(house)
    connection = await ada.connect()
    for method in ("GET", "DELETE"):
        heard = []
        for one in (connection, NOBODY, "con_x", "%00", ada.id):
            status, problem, _ = await asked(house, method, f"/v1/connections/{one}", eve.key)
            heard.append((status, {k: v for k, v in problem.items() if k not in ("instance", "request_id")}))
        assert heard == [heard[0]] * len(heard)
        assert heard[0][0] == 404
    assert await listed(eve, f"?userId={ada.id}&state=all") == []
    assert (await shown(ada, connection))["state"] == "active"
