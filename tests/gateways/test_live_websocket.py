"""A mailbox's stream over a WebSocket."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateways.http import serving as http_serving
from gateways.local_servers import Servers
from tests.support.streams_house import Box, Serving, StreamsHouse, streams_house, until


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


@asynccontextmanager
async def socket_of(
    serving: Serving, box: Box, query: str | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    query = f"?token={box.token}" if query is None else query
    async with aiohttp.ClientSession() as session:
        url = f"{serving.url}/ws/inbox/{box.address}{query}"
        async with session.ws_connect(url, headers=headers, autoclose=False) as socket:
            yield socket


async def heard(socket: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(10):
        return await socket.receive_json()


async def test_a_new_message_is_pushed_with_the_facts_of_the_other_stream(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving, socket_of(serving, box) as socket:
        await until(lambda: len(serving.live.streams) == 1)
        message = await house.receive(box, "Grüße")
        facts = await heard(socket)
        assert facts.keys() == {"event", "message_id", "from_address", "subject", "received_at", "id"}
        assert (facts["event"], facts["message_id"]) == ("new_message", message)
        assert (facts["from_address"], facts["subject"]) == ("ann@example.org", "Grüße")
        missed = await house.receive(box)
        async with socket_of(serving, box, f"?token={box.token}&after={facts['id']}") as again:
            assert (await heard(again))["message_id"] == missed


async def test_a_socket_lives_longer_than_a_head_may_take(house: StreamsHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its connection carried nothing before it or another request."""
    monkeypatch.setattr(http_serving, "HEAD_SECONDS", 0.5)
    box = await house.mailbox()
    async with house.serving(turn_seconds=0.4) as serving, aiohttp.ClientSession() as session:
        url = f"{serving.url}/ws/inbox/{box.address}"
        for asked_before in (False, True):
            if asked_before:
                async with session.get(url) as answer:
                    assert answer.status == 426
            async with session.ws_connect(f"{url}?token={box.token}") as socket:
                # The first ping comes with the fourth turn, after more than twice the time that a head has.
                assert await heard(socket) == {"event": "ping"}
                message = await house.receive(box)
                assert (await heard(socket))["message_id"] == message


async def test_credentials_are_taken_from_the_query_or_from_the_header(house: StreamsHouse) -> None:
    account, _, key = await house.account()
    box = await house.mailbox(owner=account)
    bearer = {"Authorization": f"Bearer {key}"}
    async with house.serving() as serving:
        for query, headers in ((f"?token={box.token}", None), (f"?api_key={key}", None), ("", bearer)):
            async with socket_of(serving, box, query, headers) as socket:
                await until(lambda: len(serving.live.streams) == 1)
                message = await house.receive(box)
                assert (await heard(socket))["message_id"] == message
            await until(lambda: len(serving.live.streams) == 0)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?token=uct_nonsense", {}),
        ("?api_key=pl_live_nonsense", {}),
        ("?api_key={key}", {}),
        ("?api_key={own}", {"Origin": "https://evil.example"}),
        ("?api_key={own}", {"Origin": "http://[x"}),
        ("?token={other}", {}),
    ],
)
async def test_who_may_not_watch_is_refused_before_the_handshake(
    house: StreamsHouse, query: str, headers: dict[str, str]
) -> None:
    account, _, own = await house.account()
    _, _, key = await house.account()
    box, other = await house.mailbox(owner=account), await house.mailbox()
    async with house.serving() as serving:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket_of(serving, box, query.format(key=key, own=own, other=other.token), headers):
                pass
        assert refused.value.status == 403


async def test_the_refusal_is_a_close_with_1008(house: StreamsHouse) -> None:
    """As ASGI says it: the server makes a 403 of it on the wire."""
    box = await house.mailbox()
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with house.serving() as serving:
        scope = {"type": "websocket", "path": f"/ws/inbox/{box.address}", "query_string": b"", "headers": []}
        await serving.live(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_credential_in_the_query_is_out_of_reach_of_logs(
    house: StreamsHouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn logs the query of every WebSocket."""
    # The check of imports disables every logger there is in its process, which may be this one.
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", False)
    caplog.set_level("INFO")
    caplog.set_level("INFO", logger="uvicorn.error")  # a role holds it at WARNING
    box = await house.mailbox()
    async with house.serving() as serving, socket_of(serving, box):
        await until(lambda: len(serving.live.streams) == 1)
    assert "/ws/inbox/" in caplog.text
    assert box.token not in caplog.text


async def test_pings_are_events_and_come_every_fourth_turn(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving(turn_seconds=0.1) as serving, socket_of(serving, box) as socket:
        begun = asyncio.get_running_loop().time()
        assert [await heard(socket) for _ in range(3)] == [{"event": "ping"}] * 3
        assert 0.7 < asyncio.get_running_loop().time() - begun < 2.5


async def test_at_the_end_the_mailbox_says_so_and_the_socket_closes_with_1000(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving:
        async with socket_of(serving, box) as socket:
            await until(lambda: len(serving.live.streams) == 1)
            await house.expire(box)
            assert await heard(socket) == {"event": "inbox.expired", "reason": "expired"}
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1000
        async with socket_of(serving, box) as late:
            assert (await heard(late))["event"] == "inbox.expired"
            assert (await late.receive()).type is aiohttp.WSMsgType.CLOSE
            assert late.close_code == 1000


async def test_what_a_client_says_is_ignored_up_to_64_kib(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving, socket_of(serving, box) as socket:
        await socket.send_str("x" * 65_536)
        await socket.send_bytes(b"x" * 65_536)
        await socket.ping()
        message = await house.receive(box)
        assert (await heard(socket))["message_id"] == message
        await socket.send_bytes(b"x" * 65_537)
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1009


async def test_a_token_that_is_none_of_ours_hears_reset_first(house: StreamsHouse) -> None:
    box = await house.mailbox()
    message = await house.receive(box)
    async with house.serving() as serving, socket_of(serving, box, f"?token={box.token}&after=garbage") as socket:
        reset = await heard(socket)
        assert (reset["event"], reset["id"]) == ("reset", reset["oldest"])
        assert (await heard(socket))["message_id"] == message


async def test_too_many_are_refused_with_429(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving(per_owner=1) as serving, socket_of(serving, box):
        await until(lambda: len(serving.live.streams) == 1)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket_of(serving, box):
                pass
        assert refused.value.status == 429


async def test_a_restart_closes_with_1012(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving, socket_of(serving, box) as socket:
        await until(lambda: len(serving.live.streams) == 1)
        await serving.live.close_all()
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1012


async def test_a_client_who_falls_behind_is_closed_with_1013(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving(queue=5) as serving, socket_of(serving, box) as socket:
        await until(lambda: len(serving.live.streams) == 1)
        await house.receive_many(box, 6)
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1013
