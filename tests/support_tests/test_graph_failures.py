"""How the Graph fake loses answers, fails as it is told, and what is left when it is killed."""

import asyncio
import gzip
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from tests.support.graph.caller import ALICE, TOKENS, Caller, message
from tests.support.graph.double import KIND, UNKIND, GraphFake, Token
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


async def lost(seed: int) -> list[bool]:
    async with GraphFake({"alice": Token(ALICE)}, seed=seed, **UNKIND) as graph, aiohttp.ClientSession() as http:
        caller, found = Caller(http, graph), []
        for _ in range(20):
            try:
                found.append((await caller.send(await caller.draft())).status != 202)
            except aiohttp.ClientError:
                found.append(True)
        assert len(graph.receipts()) == 20, "answers are lost, mails are not"
        assert (await graph.told())["lost"] == sum(found)
        return found


async def test_answers_are_lost_the_same_in_every_run() -> None:
    first, second, other = await asyncio.gather(lost(1), lost(1), lost(2))
    assert first == second != other
    assert 0 < sum(first) < 20


@pytest.mark.parametrize(("by", "status"), [("504", 504), ("drop", 0), ("hang", 0)])
async def test_in_which_way_an_answer_is_lost(graph: GraphFake, caller: Caller, by: str, status: int) -> None:
    await graph.set(lostAnswers=1, lostBy=by)
    draft = await caller.draft()
    if by == "504":
        assert (await caller.send(draft)).status == 504
    else:
        with pytest.raises(TimeoutError if by == "hang" else aiohttp.ClientError):
            await asyncio.wait_for(caller.send(draft), 1)
    assert len(graph.receipts()) == 1
    assert (await graph.told())["calls"][-1]["status"] == status


@pytest.mark.parametrize(
    ("failure", "mails"),
    [
        ({"status": 500}, 0),
        ({"status": 504, "when": "after"}, 1),
        ({"drop": "before"}, 0),
        ({"drop": "after"}, 1),
        ({"drop": "inside"}, 1),
        ({"delay": 1}, 1),
        ({"delayAfter": 30}, 1),
    ],
)
async def test_before_or_after_the_mail_went_out(
    graph: GraphFake, caller: Caller, failure: dict[str, Any], mails: int
) -> None:
    draft = await caller.draft()
    await graph.fail("messages.send", **failure)
    if "status" in failure:
        assert (await caller.send(draft)).status == failure["status"]
    else:
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await asyncio.wait_for(caller.send(draft), 0.5)

    async def settled() -> bool:
        return len(graph.receipts()) == mails

    await until(settled)
    assert (await graph.told())["injected"] == {"messages.send": 1}
    if not mails:
        assert (await caller.send(draft)).status == 202


async def test_which_requests_fail_and_what_they_say(graph: GraphFake, caller: Caller) -> None:
    await graph.fail("messages.*", user=ALICE, skip=1, times=2, status=429, retryAfter=7, containing="hello")
    assert (await caller.of("bob").ask("POST", "/me/messages", message())).status == 201
    assert (await caller.ask("POST", "/me/messages", message(subject="other"))).status == 201
    answers = [await caller.ask("POST", "/me/messages", message()) for _ in range(4)]
    assert [one.status for one in answers] == [201, 429, 429, 201]
    assert (answers[1].code, answers[1].headers["retry-after"]) == ("ApplicationThrottled", "7")
    await graph.fail("me", status=503, retryAt=120)
    told = await caller.ask("GET", "/me")
    assert told.code == "ServiceUnavailable"
    assert 100 < (parsedate_to_datetime(told.headers["retry-after"]) - datetime.now(UTC)).total_seconds() <= 120
    await graph.fail("me", status=403, code="ErrorQuotaExceeded", message="full")
    assert (await caller.ask("GET", "/me")).code == "ErrorQuotaExceeded"
    await graph.fail("me", status=502, body="<html>Bad gateway</html>")
    assert (await caller.ask("GET", "/me")).body == b"<html>Bad gateway</html>"
    await graph.fail("me", status=401)
    assert "www-authenticate" in (await caller.ask("GET", "/me")).headers


async def test_answers_that_are_torn_or_endless(graph: GraphFake, caller: Caller) -> None:
    await graph.fail("me", truncate=10)
    with pytest.raises(json.JSONDecodeError):
        await caller.ask("GET", "/me")
    await graph.fail("me", drop="inside")
    with pytest.raises(aiohttp.ClientError):
        await caller.ask("GET", "/me")
    await graph.fail("me", drip=200, body="0123456789")
    began = time.monotonic()
    assert (await caller.ask("GET", "/me")).body == b"0123456789"
    assert time.monotonic() - began > 0.04
    await graph.fail("me", huge=1 << 24)
    with pytest.raises(json.JSONDecodeError):  # our own: a piece short of the end would do as well
        json.loads((await caller.ask("GET", "/me")).body[:-1])
    await graph.fail("me", endlessHeaders=0.01)
    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        await asyncio.wait_for(caller.ask("GET", "/me"), 1)


async def test_a_little_can_unpack_to_a_lot(graph: GraphFake) -> None:
    await graph.fail("me", bomb=64 << 20)
    headers = {"Authorization": "Bearer alice"}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.get(f"{graph.url}/me", headers=headers) as told,
    ):
        packed = await told.read()
    assert len(packed) * 900 < len(gzip.decompress(packed)) == 64 << 20


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("fail", {"match": "messages.nothing"}),
        ("fail", {"match": "me", "statuss": 1}),
        ("fail", {"match": "me", "when": "never"}),
        ("set", {"sentLagMs": 1}),
        ("set", {"lostBy": "luck"}),
    ],
)
async def test_unknown_words_are_refused(graph: GraphFake, order: str, words: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"statuss|sentLagMs|is one of|no operation"):
        await getattr(graph, order)(**words)


async def test_tokens_come_and_go(graph: GraphFake, caller: Caller) -> None:
    await graph.token("new", ALICE)
    assert (await caller.of("new").ask("GET", "/me")).status == 200
    await graph.token("new")
    assert (await caller.of("new").ask("GET", "/me")).status == 401


async def test_a_send_that_is_open_at_a_reset_sends_nothing(graph: GraphFake, caller: Caller) -> None:
    await graph.fail("messages.send", delay=1)
    sending = asyncio.create_task(caller.send(await caller.draft()))

    async def open_() -> bool:
        return "messages.send" in (await graph.told())["injected"]

    await until(open_)
    await graph.reset()
    assert (await sending).status in {404, 503}
    assert (graph.receipts(), (await graph.told())["mails"]) == ([], 0)


async def test_receipts_outlive_a_kill() -> None:
    async with GraphFake({"alice": Token(ALICE)}, **KIND | {"sync": True}) as graph, aiohttp.ClientSession() as http:
        caller = Caller(http, graph)
        done: list[str] = []

        async def forever(number: int) -> None:
            for turn in range(1000):
                told = await caller.ask("POST", "/me/sendMail", {"message": message(subject=f"{number}-{turn}")})
                assert told.status == 202
                done.append(f"{number}-{turn}")

        running = [asyncio.create_task(forever(number)) for number in range(8)]

        async def enough() -> bool:
            return len(done) > 40

        await until(enough)
        await graph.kill()
        await asyncio.gather(*running, return_exceptions=True)
        written = [one["subject"] for one in graph.receipts()]
        assert set(done) <= set(written), "nobody heard of a mail that is not on the disk"
        assert len(written) == len(set(written))


async def test_what_is_started_is_the_server_itself_and_ends_with_us() -> None:
    async with GraphFake() as graph:
        pid, file = graph.pid, graph.receipts_path
        os.kill(pid, 0)
        assert file.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
    assert not file.exists()
