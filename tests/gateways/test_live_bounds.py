"""What bounds a stream: how much may wait for a client, how long it may not read, how many there may be, and for how long."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateways.local_servers import Servers
from tests.support.held_client import HeldClient
from tests.support.sse_client import SseReader, sse
from tests.support.streams_house import StreamsHouse, streams_house, until


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


async def ids(reader: SseReader, count: int) -> list[str]:
    return [event.facts["message_id"] for _ in range(count) if (event := await reader.next()) is not None]


async def test_an_idle_stream_shows_signs_of_life(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving(turn_seconds=0.2) as serving, sse(serving.url + box.path, box.bearer) as reader:
        with pytest.raises(TimeoutError):
            await reader.next(seconds=1.2)
        assert 4 <= reader.comments <= 7


@pytest.mark.parametrize(("waiting", "ended"), [(256, False), (257, True)])
async def test_a_client_who_falls_behind_is_ended_and_misses_nothing_when_it_resumes(
    house: StreamsHouse, waiting: int, ended: bool
) -> None:
    """While one event is being sent, so many more may wait."""
    box = await house.mailbox()
    async with house.serving() as serving:
        client = HeldClient(box.path, box.token)
        request = asyncio.create_task(serving.live(client.scope, client.receive, client.send))
        client.read(2)
        await until(lambda: len(client.sent) == 2)
        await house.receive(box)
        await until(lambda: client.is_sending)
        await house.receive_many(box, waiting)
        client.read()
        if not ended:
            await until(lambda: len(client.messages) == 257)
            client.gone.set()
        await request
        assert client.messages == box.messages[: 1 if ended else None]
        assert client.completed == ended
        token = b"".join(client.sent).rsplit(b"id: ", 1)[1].split(b"\n")[0].decode()
        async with sse(serving.url + box.path, box.bearer, last_id=token) as again:
            await house.receive(box)
            missed = box.messages[len(client.messages) :]
            assert await ids(again, len(missed)) == missed


async def test_what_a_client_could_not_keep_while_it_caught_up_is_read_again(house: StreamsHouse) -> None:
    """Far more happens than may wait, while the client is being told of what was before."""
    box = await house.mailbox()
    begin = house.position(box)
    await house.receive_many(box, 250)
    async with house.serving(queue=5) as serving:
        client = HeldClient(box.path, box.token, begin)
        client.read(2 + 1)
        request = asyncio.create_task(serving.live(client.scope, client.receive, client.send))
        await until(lambda: len(client.messages) == 200 and client.is_sending)
        await house.receive_many(box, 20)
        client.read()
        await until(lambda: len(client.messages) >= 270)
        client.gone.set()
        await request
    assert client.messages == box.messages


async def test_a_client_who_reads_is_not_ended_by_a_burst(house: StreamsHouse) -> None:
    """However much becomes readable at once."""
    box = await house.mailbox()
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as reader:
        await until(lambda: len(serving.live.streams) == 1)
        async with house.pool.acquire() as connection, connection.transaction():
            await connection.execute("lock table feed in exclusive mode")
            await house.append_unfolded([house.mail(box) for _ in range(900)], box.owner)
        assert await ids(reader, 900) == box.messages


async def test_a_client_who_does_not_read_is_dropped(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving(reader_seconds=1, turn_seconds=0.2) as serving:
        host, port = serving.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET {box.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {box.token}\r\n\r\n"
        writer.write(request.encode())
        await until(lambda: len(serving.live.streams) == 1)
        writer.transport.pause_reading()
        async with sse(serving.url + box.path, box.bearer) as honest:
            number = 0
            async with asyncio.timeout(60):
                while len(serving.live.streams) == 2:
                    number += 1
                    many = [house.mail(box, "x" * 20_000) for _ in range(20)]
                    await house.append_all(many, box.owner)
                    assert len(await ids(honest, 20)) == 20
        writer.close()


async def test_streams_are_counted_for_each_owner_and_in_all(house: StreamsHouse) -> None:
    box, other = await house.mailbox(), await house.mailbox()
    async with house.serving(per_owner=2, in_all=3) as serving, aiohttp.ClientSession() as session:
        first = [await session.get(serving.url + box.path, headers=box.bearer) for _ in range(2)]
        refused = await session.get(serving.url + box.path, headers=box.bearer)
        assert refused.status == 429
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert int(refused.headers["Retry-After"]) > 0
        third = await session.get(serving.url + other.path, headers=other.bearer)
        assert third.status == 200
        assert (await session.get(serving.url + other.path, headers=other.bearer)).status == 429
        first[0].close()
        await until(lambda: len(serving.live.streams) == 2)
        again = await session.get(serving.url + box.path, headers=box.bearer)
        assert again.status == 200
        for response in (*first, third, again):
            response.close()


async def test_a_restart_ends_every_stream_and_spreads_who_comes_back(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving:

        async def watched() -> tuple[int | None, str]:
            async with sse(serving.url + box.path, box.bearer) as reader:
                assert await reader.next() is None
                return reader.retry_ms, reader.last_id

        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watched()) for _ in range(50)]
            await until(lambda: len(serving.live.streams) == 50)
            async with asyncio.timeout(2):
                await serving.live.close_all()
        retries = {(await watched)[0] for watched in watching}
        assert len(retries) > 30
        assert all(retry is not None and 2000 <= retry < 6000 for retry in retries)
        assert {(await watched)[1] for watched in watching} == {house.position(box)}
        async with aiohttp.ClientSession() as session, session.get(serving.url + box.path, headers=box.bearer) as late:
            assert late.status == 503
            assert "Retry-After" in late.headers


def tasks_of_http() -> list[asyncio.Task[object]]:
    """Tasks of the server and its streams; the rest of the house has its own, which come and go."""
    codes = [(task, getattr(task.get_coro(), "cr_code", None)) for task in asyncio.all_tasks()]
    return [
        task for task, code in codes if code and ("gateways/http" in code.co_filename or "uvicorn" in code.co_filename)
    ]


async def test_a_stream_that_is_left_leaves_nothing_behind(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving:
        before = len(tasks_of_http())
        for _ in range(20):
            async with sse(serving.url + box.path, box.bearer):
                await until(lambda: len(serving.live.streams) == 1)
            await until(lambda: len(serving.live.streams) == 0)
        await until(lambda: len(tasks_of_http()) <= before)
        assert serving.live._fanout._watching == {}
        assert serving.live.streams._of_owner == {}
