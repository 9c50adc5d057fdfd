"""Every operation of the API, asked by everybody who has no right to it: what is somebody else's is not there."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import FormData
from yarl import URL

from gateways.http.v1.pending import SEND_MAIL, operation_of
from gateways.local_servers import Servers
from gateways.log.decisions import Asked
from tests.support.connected import person
from tests.support.http_house import HttpHouse, bearer, http_house, path
from tests.support.servers import create_database, drop_database

#: Operations that need no credentials, because they show nothing of anybody's. A new one has to be thought about here.
OPEN_TO_ALL = {"createMailbox", "livez", "readyz", "metrics", "getLimits"}
MAIL = b"From: Ann <ann@example.org>\r\nSubject: Secret-canary\r\n\r\nSecret-canary in the text.\r\n"
NOBODY, NOTHING, NO_FILE = "usr_" + "0" * 26, "con_" + "0" * 26, "att_" + "0" * 26
NO_SEND = "snd_" + "0" * 26
NO_HOOK, NO_DELIVERY = "whk_" + "0" * 26, "whd_" + "0" * 26
METHODS = {"get", "post", "put", "patch", "delete", "head", "options"}


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"tenancy_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


async def operations_of(house: HttpHouse) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation, from the document itself."""
    async with house.http.get(f"{house.url}/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    return [
        (method, path, told) for path, all_of in paths.items() for method, told in all_of.items() if method in METHODS
    ]


async def asked(house: HttpHouse, method: str, target: str, headers: dict[str, str], **more: Any) -> tuple[int, str]:
    """Status and text of the answer to exactly this target."""
    url = URL(house.url + target, encoded=True)
    async with house.http.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
        return answer.status, await answer.text()


def filled(
    pattern: str,
    address: str,
    message: str,
    user: str = NOBODY,
    connection: str = NOTHING,
    *,
    attachment: str = NO_FILE,
    webhook: str = NO_HOOK,
    send: str = NO_SEND,
    operation: str = "op_x",
) -> str:
    target = pattern.replace("{address}", address).replace("{message_id}", message).replace("{index}", "0")
    target = target.replace("{user_id}", user).replace("{connection_id}", connection)
    target = target.replace("{attachment_id}", attachment).replace("{webhook_id}", webhook)
    target = target.replace("{delivery_id}", NO_DELIVERY)
    target = target.replace("{send_id}", send).replace("{operation_id}", operation)
    return target + ("?ttl_minutes=5" if target.endswith("/extend") else "")


async def attached(house: HttpHouse, key: str, user: str) -> str:
    """An attachment of the user."""
    where, form = f"{house.url}/v1/attachments/upload?userId={user}", FormData()
    form.add_field("file", b"Secret-canary", filename="secret-canary.txt")
    async with house.http.post(where, headers=bearer(key), data=form) as answer:
        return str((await answer.json())["id"])


async def asked_to_send(house: HttpHouse, account: str, key: str, user: str) -> dict[str, str]:
    """A mail of the user that waits for its time, and the operation that made it."""
    mail = {"userId": user, "subject": "Secret-canary", "body": "x", "bodyFormat": "text", "to": ["canary@example.org"]}
    mail["scheduledAt"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    async with house.http.post(f"{house.url}/v1/messages/send", headers=bearer(key), json=mail) as answer:
        assert answer.status == 202, await answer.text()
        send = str((await answer.json())["messageId"])
    made = Asked("", user, send, None, "", f"cmd_{send.removeprefix('snd_')}")
    return {
        "send": send,
        "operation": operation_of(house.services.keyset, account, SEND_MAIL, made, datetime.now(UTC)),
    }


async def test_every_operation_that_is_not_open_to_all_asks_who_is_there(house: HttpHouse) -> None:
    for method, pattern, told in await operations_of(house):
        if told.get("operationId") in OPEN_TO_ALL or "/ses/" in pattern:
            continue
        status, text = await asked(house, method, filled(pattern, "x@mail.example", "msg_x"), {})
        assert status == 401, f"{method} {pattern}: {status} {text}"
        assert told["security"], pattern
        assert {} not in told["security"], pattern


async def test_a_stranger_hears_the_same_of_what_is_there_as_of_what_is_not(house: HttpHouse) -> None:
    """Each operation with an inbox in it × every stranger: another account's key, another inbox's token, an own inbox."""
    (_, owners), (_, strangers) = await house.account(), await house.account()
    box, others = await house.mailbox(owners), await house.mailbox(strangers)
    anonymous = await house.mailbox()
    await house.deliver(box["address"], MAIL)
    (message,) = await house.listed(box, 1)
    tried = 0
    for method, pattern, _ in await operations_of(house):
        if "{address}" not in pattern:
            continue
        for who in (strangers, others, anonymous):
            there = await asked(house, method, filled(pattern, box["address"], message["id"]), bearer(who))
            absent = await asked(house, method, filled(pattern, "no-such-00000000@mail.example", "msg_x"), bearer(who))
            assert there[0] == absent[0] == 404, f"{method} {pattern}"
            assert "Secret-canary" not in there[1]
            tried += 1
        if "{message_id}" in pattern:
            mixed = await asked(house, method, filled(pattern, others["address"], message["id"]), bearer(others))
            assert mixed[0] == 404, f"{method} {pattern} with another inbox's message"
            tried += 1
    assert tried >= 25
    (still,) = await house.listed(box, 1)
    assert (still["id"], still["is_read"]) == (message["id"], False)


async def test_a_stranger_hears_the_same_of_users_and_connections_as_of_none(house: HttpHouse) -> None:
    """Each operation with a user or a connection in it × every stranger; and nothing has changed afterwards."""
    (account, owners), (_, strangers) = await house.account(), await house.account()
    ada = await person(house, account, owners, displayName="Secret-canary")
    connection = await ada.connect("secret-canary@gmail.example")
    attachment = await attached(house, owners, ada.id)
    sends = await asked_to_send(house, account, owners, ada.id)
    box = await house.mailbox(strangers)
    tried = 0
    for method, pattern, _ in await operations_of(house):
        if not {"{user_id}", "{connection_id}", "{send_id}", "{operation_id}", "{attachment_id}"} & set(
            pattern.split("/")
        ):
            continue
        for who, status in ((strangers, 404), (box, 403), (None, 401)):
            there = await asked(
                house, method, filled(pattern, "", "", ada.id, connection, **sends, attachment=attachment), bearer(who)
            )
            absent = await asked(house, method, filled(pattern, "", ""), bearer(who))
            assert there[0] == absent[0] == status, f"{method} {pattern}"
            assert "canary" not in there[1]
            tried += 1
    assert tried >= 12
    for where in (
        f"/v1/users/{ada.id}",
        f"/v1/connections/{connection}",
        f"/v1/attachments/{attachment}",
        f"/v1/messages/{sends['send']}",
    ):
        status, text = await asked(house, "get", where, bearer(owners))
        assert status == 200
        assert "canary" in text
        assert '"state":"revoked"' not in text
        assert '"status":"cancelled"' not in text
    for where in (
        "/v1/users",
        f"/v1/users?email={ada.said['email']}",
        f"/v1/connections?userId={ada.id}&state=all",
        "/v1/attachments",
        "/v1/messages",
        f"/v1/messages?userId={ada.id}",
    ):
        assert (await asked(house, "get", where, bearer(strangers)))[1] == '{"items":[],"nextCursor":null}'


#: What each scope allows, beside what all keys may. An operation that takes a key stands here, or the test fails.
ALLOWED = {
    "mailboxes:read": {"listMailboxes", "getMailbox", "listMessages", "getMessage", "getRawMessage", "getAttachment"},
    "mailboxes:write": {"createMailbox", "deleteMailbox", "extendMailbox", "deleteMessage"},
    "users:read": {"listUsers", "getUser"},
    "users:write": {"createUser", "deleteUser"},
    "connections:read": {"listConnections", "getConnection"},
    "connections:write": {"revokeConnection"},
    "sends:read": {
        "listAttachments",
        "getStoredAttachment",
        "downloadStoredAttachment",
        "listSends",
        "getSend",
        "getRawSend",
        "getOperation",
    },
    "sends:write": {"uploadAttachment", "deleteAttachment", "sendMessage", "moveSend", "cancelSend", "retrySend"},
    "webhooks:read": {
        "listWebhooks",
        "getWebhook",
        "listDeliveries",
        "listCallbackDeliveries",
        "listSendDeliveries",
    },
    "webhooks:write": {
        "createWebhook",
        "deleteWebhook",
        "rotateWebhook",
        "enableWebhook",
        "testWebhook",
        "getWebhookSecret",
        "rotateWebhookSecret",
        "resendDelivery",
        "resendSendDelivery",
        "resendDeliveries",
    },
    "events:read": set(),
}


async def test_a_key_does_what_its_scopes_say_and_nothing_else(house: HttpHouse) -> None:
    """Each operation that takes an API key × keys of one account that are narrowed to this and that."""
    account, key = await house.account()
    keys = {scope: await house.key(account, scope) for scope in ALLOWED}
    box = await house.mailbox(keys["mailboxes:write"])
    await house.deliver(box["address"], MAIL)
    (message,) = await house.listed(box, 1)
    ada = await person(house, account, key)
    connection = await ada.connect()
    attachment = await attached(house, key, ada.id)
    sends = await asked_to_send(house, account, key, ada.id)
    async with house.http.post(
        f"{house.url}/v1/webhooks", headers=bearer(key), json={"url": "https://hooks.example.org"}
    ) as answer:
        webhook = (await answer.json())["id"]
    guarded, refused = set(), set()
    for method, pattern, told in sorted(await operations_of(house), key=lambda one: "delete" in one):
        if {"apiKey": []} not in told.get("security", []) or pattern.startswith("/ws/") or pattern.endswith("/events"):
            continue  # the streams: test_live_all.py
        guarded.add(told["operationId"])
        target = filled(
            pattern, box["address"], message["id"], ada.id, connection, **sends, attachment=attachment, webhook=webhook
        )
        for scope, narrowed in keys.items():
            status, text = await asked(house, method, target, bearer(narrowed))
            if status == 403:
                assert json.loads(text)["code"] == "scope_missing"
                assert json.loads(text)["scope"] in text
                refused.add((scope, told["operationId"]))
            else:  # there is no attachment, nothing is said of the user to be, and what was deleted is gone
                says_nothing = pattern in {"/v1/users", "/v1/attachments/upload", "/v1/webhooks"} or "resend" in pattern
                says_nothing = says_nothing or pattern in {"/v1/messages/send", "/v1/messages/{send_id}/retry"}
                says_nothing = says_nothing or method == "patch"
                there = status < 400 or "{index}" in pattern or says_nothing or method == "delete"
                assert there, f"{method} {pattern} with {scope}: {status} {text}"
    assert guarded == set().union(*ALLOWED.values())
    for scope, allowed in ALLOWED.items():
        to_read = ALLOWED[scope.replace(":write", ":read")]
        assert {name for one, name in refused if one == scope} == guarded - allowed - to_read


async def test_the_list_of_one_account_holds_nothing_of_another(house: HttpHouse) -> None:
    (_, owners), (_, strangers) = await house.account(), await house.account()
    box, others = await house.mailbox(owners), await house.mailbox(strangers)
    for key, own in ((owners, box), (strangers, others)):
        for query in ("", "?offset=0&limit=1000", "?owner=acc_x", f"?address={box['address']}"):
            status, text = await asked(house, "get", f"/api/v1/mailboxes{query}", bearer(key))
            assert status == 200
            assert own["address"] in text
            assert ({box["address"], others["address"]} - {own["address"]}).pop() not in text


@pytest.mark.parametrize(
    "trick",
    [
        "/{path}",
        "/x/..{path}",
        "/x/%2e%2e{path}",
        "{path};/messages",
        "{path}/messages/..",
        "{path}/messages/%2e%2e/messages",
        "{path}%2fmessages",
        "{path}/messages%00",
        "{path}/messages/../../../../../etc/passwd",
        "{path}/messages/..%5c..%5c",
        "{path}\\messages",
    ],
)
async def test_a_path_that_is_written_otherwise_opens_nothing(house: HttpHouse, trick: str) -> None:
    """Neither to a stranger nor without credentials; and it is never an error of ours."""
    (_, strangers), box = await house.account(), await house.mailbox()
    await house.deliver(box["address"], MAIL)
    await house.listed(box, 1)
    for headers in ({}, bearer(strangers)):
        status, text = await asked(house, "get", trick.replace("{path}", path(box)), headers)
        assert status in {400, 401, 404, 405}, text
        assert "Secret-canary" not in text


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"X-HTTP-Method-Override": "DELETE"}, ""),
        ({"X-Method-Override": "DELETE"}, ""),
        ({}, "?_method=DELETE"),
        ({"X-Original-URL": "/api/v1/mailboxes"}, ""),
        ({"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}, ""),
    ],
)
async def test_no_header_makes_another_request_of_one(house: HttpHouse, headers: dict[str, str], query: str) -> None:
    box = await house.mailbox()
    status, text = await asked(house, "get", path(box) + query, bearer(box) | headers)
    assert status == 200
    assert box["address"] in text
    assert (await asked(house, "get", path(box), bearer(box)))[0] == 200


async def test_the_host_a_client_names_stands_in_no_answer(house: HttpHouse) -> None:
    poison = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
    for method, target in (
        ("post", "/api/v1/mailboxes"),
        ("get", "/nothing"),
        ("get", "/openapi.json"),
        ("get", "/docs"),
    ):
        async with house.http.request(method, house.url + target, headers=poison, allow_redirects=False) as answer:
            assert "evil.example" not in await answer.text()
            assert "evil.example" not in str(answer.headers)
            assert answer.status not in range(300, 400)


async def test_nothing_can_be_had_by_naming_it_in_the_body(house: HttpHouse) -> None:
    """An anonymous inbox has the free plan and a life of an hour, whatever else is asked for."""
    account, _ = await house.account()
    wish = {
        "owner": account,
        "plan": "pro",
        "expires_at": "2099-01-01T00:00:00Z",
        "ttl_minutes": 100_000,
        "address": "a@b",
    }
    status, text = await asked(house, "post", "/api/v1/mailboxes?ttl_minutes=100000", {}, json=wish)
    assert status == 201, text
    assert "a@b" not in text
    lifetime = (
        datetime.fromisoformat(json.loads(text)["expires_at"]).timestamp() - datetime.now().astimezone().timestamp()
    )
    assert lifetime <= 3600
    count = await house.services.pool.fetchval("select count(*) from mailboxes where owner = $1", account)
    assert count == 0
