"""Whom and what the Graph fake refuses, and how often it is to be asked."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from tests.support.graph.caller import ALICE, TOKENS, Caller, attachment, message, person
from tests.support.graph.double import GraphFake
from tests.support.oauth_server.server import OAuthServer
from tests.support.waiting import until


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
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http:
        yield Caller(http, graph)


async def test_scopes_are_those_of_the_token(graph: GraphFake, caller: Caller) -> None:
    draft = await caller.of("writes").draft()
    assert (await caller.of("sends").send(draft)).status == 202
    for token, method, path in [
        ("writes", "POST", "/me/sendMail"),
        ("writes", "POST", f"/me/messages/{draft}/send"),
        ("writes", "GET", "/me"),
        ("sends", "POST", "/me/messages"),
        ("sends", "GET", f"/me/messages/{draft}"),
        ("reads", "PATCH", f"/me/messages/{draft}"),
    ]:
        told = await caller.of(token).ask(method, path, {"message": message()})
        assert (told.status, told.code) == (403, "ErrorAccessDenied"), (token, method, path)
    assert (await caller.of("bob").get(draft)).status == 404, "another's mailbox"
    assert (await caller.of("reads").ask("GET", "/me")).json["mail"] == ALICE
    assert len(graph.receipts()) == 1


async def test_tokens_are_asked_of_the_authorization_server_each_time() -> None:
    scope = "openid offline_access User.Read https://graph.microsoft.com/Mail.ReadWrite Mail.Send"
    async with (
        OAuthServer(mode="microsoft") as oauth,
        GraphFake(oauth=oauth.issuer) as graph,
        aiohttp.ClientSession() as http,
    ):
        (seeded,) = await oauth.seed(client="client", scope=scope, logins=[ALICE])
        caller = Caller(http, graph, seeded.access_token)
        told = await caller.ask("GET", "/me")
        async with http.get(
            f"{oauth.issuer}/v1.0/me", headers={"Authorization": f"Bearer {seeded.access_token}"}
        ) as same:
            assert (told.status, told.json) == (200, await same.json())
        draft = await caller.draft()
        assert (await caller.of(seeded.refresh_token).get(draft)).status == 401
        await oauth.revoke(ALICE)
        told = await caller.send(draft)
        assert (told.status, told.code) == (401, "InvalidAuthenticationToken")
        assert told.headers["www-authenticate"].startswith('Bearer realm=""')
        assert graph.receipts() == []


async def test_an_error_has_the_form_of_graphs(caller: Caller) -> None:
    told = await caller.ask("GET", "/me/messages/none", client_request_id="mine")
    inner = told.json["error"]["innerError"]
    assert (told.json["error"].keys(), told.code) == ({"code", "message", "innerError"}, "ErrorItemNotFound")
    assert inner["request-id"] == told.headers["request-id"]
    assert inner["client-request-id"] == told.headers["client-request-id"] == "mine"
    assert datetime.fromisoformat(inner["date"])
    assert (await caller.ask("GET", "/me", authorized=False)).code == "InvalidAuthenticationToken"
    assert (await caller.ask("GET", "/me/nothing")).status == 400


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ({"toRecipients": []}, 400, "ErrorInvalidRecipients"),
        ({"toRecipients": [person("nobody")]}, 400, "ErrorInvalidRecipients"),
        ({"from": person("other@x.test")}, 403, "ErrorSendAsDenied"),
        ({"toRecipients": [person(f"u{n}@x.test") for n in range(501)]}, 400, "ErrorMessageSubmissionBlocked"),
    ],
)
async def test_what_exchange_does_not_send(
    graph: GraphFake, caller: Caller, words: dict[str, Any], status: int, code: str
) -> None:
    draft = await caller.draft(**words)
    for told in (await caller.send(draft), await caller.ask("POST", "/me/sendMail", {"message": message(**words)})):
        assert (told.status, told.code) == (status, code)
    assert (await caller.get(draft)).json["isDraft"]
    assert len((await graph.told())["mailboxes"][ALICE]) == 1, "a refused sendMail leaves nothing"
    assert graph.receipts() == []


async def test_sizes(graph: GraphFake, caller: Caller) -> None:
    body = {"contentType": "text", "content": "x" * (4 << 20)}
    told = await caller.ask("POST", "/me/messages", message(body=body))
    assert (told.status, told.code) == (413, "BadRequest")
    await graph.set(messageBytes=100_000)
    draft = await caller.draft()
    told = await caller.ask("POST", f"/me/messages/{draft}/attachments", attachment(b"x" * 90_000))
    assert (told.status, told.code) == (413, "ErrorMessageSizeExceeded")


async def test_four_at_once(graph: GraphFake, caller: Caller) -> None:
    await graph.fail("me", times=4, delay=30)
    hanging = [asyncio.create_task(caller.ask("GET", "/me")) for _ in range(4)]

    async def full() -> bool:
        return (await graph.told())["users"].get(ALICE, {}).get("running") == 4

    await until(full)
    told = await caller.ask("GET", "/me")
    assert (told.status, told.code, told.headers["retry-after"]) == (429, "MailboxConcurrency", "1")
    assert (await caller.of("bob").ask("GET", "/me")).status == 200, "one mailbox does not hold up another"
    for one in hanging:
        one.cancel()
    seen = (await graph.told())["users"][ALICE]
    assert (seen["maxConcurrent"], seen["throttled"]) == (4, {"concurrency": 1})


async def test_so_many_in_a_window(graph: GraphFake, caller: Caller) -> None:
    await graph.set(requests=3, windowSeconds=2)
    statuses = [(await caller.ask("GET", "/me")).status for _ in range(3)]
    told = await caller.ask("GET", "/me")
    assert (statuses, told.status, told.code) == ([200] * 3, 429, "ApplicationThrottled")
    seconds = int(told.headers["retry-after"])
    assert 1 <= seconds <= 2
    await asyncio.sleep(seconds)
    assert (await caller.ask("GET", "/me")).status == 200


async def test_thirty_mails_a_minute(graph: GraphFake, caller: Caller) -> None:
    for _ in range(30):
        assert (await caller.ask("POST", "/me/sendMail", {"message": message()})).status == 202
    draft = await caller.draft()
    told = await caller.send(draft)
    assert (told.status, told.code) == (429, "ApplicationThrottled")
    assert 50 < int(told.headers["retry-after"]) <= 60
    assert (await caller.get(draft)).json["isDraft"]
    assert len(graph.receipts()) == 30
