"""Every stream is counted when it opens, for what it is told, and by why it ended."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import aiohttp
import pytest

from gateways.local_servers import Servers
from tests.support.sse_client import sse
from tests.support.streams_house import Serving, StreamsHouse, streams_house, until


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


def ended(serving: Serving, kind: str, cause: str) -> float:
    return serving.measured("postledger_streams_ended_total", kind=kind, cause=cause)


async def test_clients_and_what_they_are_told_are_counted_by_kind(house: StreamsHouse) -> None:
    account, key_id, key = await house.account()
    box = await house.mailbox(owner=account)
    async with house.serving() as serving, aiohttp.ClientSession() as session:
        url = f"{serving.url.replace('http', 'ws')}/ws/inbox/{box.address}?token={box.token}"
        async with (
            sse(serving.url + box.path, box.bearer) as one,
            sse(f"{serving.url}/v1/events?api_key={key}") as everything,
            session.ws_connect(url) as socket,
        ):
            await until(lambda: len(serving.live.streams) == 3)
            for kind in ("inbox_sse", "all_sse", "websocket"):
                assert serving.measured("postledger_streams_open", kind=kind) == 1
                assert serving.measured("postledger_streams_opened_total", kind=kind) == 1
            await house.receive_many(box, 3)
            for _ in range(3):
                await one.next()
                await everything.next()
                await socket.receive()
            for kind in ("inbox_sse", "all_sse", "websocket"):
                assert serving.measured("postledger_stream_events_sent_total", kind=kind) == 3
            await house.revoke(account, key_id)
            await until(lambda: ended(serving, "all_sse", "revoked") == 1)
            await house.expire(box)
            await until(lambda: ended(serving, "inbox_sse", "ended") == ended(serving, "websocket", "ended") == 1)
        for kind in ("inbox_sse", "all_sse", "websocket"):
            assert serving.measured("postledger_streams_open", kind=kind) == 0


async def test_a_client_that_leaves_and_one_that_is_sent_away_are_told_apart(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving(per_owner=1) as serving, aiohttp.ClientSession() as session:
        async with sse(serving.url + box.path, box.bearer):
            await until(lambda: len(serving.live.streams) == 1)
            async with session.get(serving.url + box.path, headers=box.bearer) as refused:
                assert refused.status == 429
        await until(lambda: ended(serving, "inbox_sse", "left") == 1)
        async with session.get(f"{serving.url}/v1/events") as stranger:
            assert stranger.status == 401
        async with sse(serving.url + box.path, box.bearer):
            await until(lambda: len(serving.live.streams) == 1)
            await serving.live.close_all()
            await until(lambda: ended(serving, "inbox_sse", "restarting") == 1)
        assert serving.measured("postledger_streams_refused_total", kind="inbox_sse", status="429") == 1
        assert serving.measured("postledger_streams_refused_total", kind="all_sse", status="401") == 1


async def test_a_client_told_to_begin_anew_is_counted(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer, last_id="elsewhere") as reader:
        event = await reader.next()
        assert event is not None
        assert event.type == "reset"
        assert serving.measured("postledger_stream_resets_total", kind="inbox_sse") == 1


@pytest.mark.parametrize(("reader_seconds", "cause"), [(0.3, "unread"), (30, "slow")])
async def test_clients_that_fall_behind_are_counted_by_how(
    house: StreamsHouse, reader_seconds: float, cause: str
) -> None:
    """One that takes nothing at all is cut; one that takes too little is closed once it takes something again."""
    box = await house.mailbox()
    taking, gone = asyncio.Event(), asyncio.Event()
    begun = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        if b"new_message" in message.get("body", b""):
            begun.set()
            await taking.wait()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    headers = [(b"authorization", f"Bearer {box.token}".encode())]
    scope = {"type": "http", "method": "GET", "path": box.path, "query_string": b"", "headers": headers}
    async with house.serving(reader_seconds=reader_seconds, queue=5) as serving:
        request = asyncio.create_task(serving.live(scope, receive, send))
        await until(lambda: len(serving.live.streams) == 1)
        await house.receive(box)
        await begun.wait()
        if cause == "slow":
            await house.receive_many(box, 6)
            taking.set()
        else:
            (stream,) = serving.live.streams._all()
            await until(lambda: stream.ended)
        gone.set()
        await request
        assert ended(serving, "inbox_sse", cause) == 1
