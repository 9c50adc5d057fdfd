"""A mailbox's stream of server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from gateways.local_servers import Servers
from tests.support.sse_client import SseReader, sse
from tests.support.streams_house import HeldBack, StreamsHouse, streams_house, until


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


async def ids(reader: SseReader, count: int) -> list[str]:
    found = []
    for _ in range(count):
        event = await reader.next()
        assert event is not None
        assert event.type == "new_message"
        found.append(event.facts["message_id"])
    return found


async def test_a_new_message_is_pushed_with_what_the_list_shows_of_it(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as reader:
        assert reader.response.status == 200
        assert reader.response.headers["Content-Type"].startswith("text/event-stream")
        assert reader.response.headers["Cache-Control"] == "no-cache"
        assert reader.response.headers["X-Accel-Buffering"] == "no"
        message = await house.receive(box, "Zwölf Äpfel\u2028")
        event = await reader.next()
        assert event is not None
        assert event.type == "new_message"
        assert event.facts.keys() == {"event", "message_id", "from_address", "subject", "received_at"}
        assert event.facts["event"] == "new_message"
        assert event.facts["message_id"] == message
        assert event.facts["from_address"] == "ann@example.org"
        assert event.facts["subject"] == "Zwölf Äpfel\u2028"
        assert datetime.fromisoformat(event.facts["received_at"]) > datetime.now(UTC) - timedelta(minutes=1)
        assert event.id == house.position(box)
        assert reader.retry_ms == 2000


async def test_the_first_bytes_come_at_once_and_are_enough_to_resume_from(house: StreamsHouse) -> None:
    """A browser that loses the connection before the first event comes back with the id of the beginning."""
    box = await house.mailbox()
    async with house.serving() as serving:
        async with sse(serving.url + box.path, box.bearer) as reader:
            async with asyncio.timeout(2):
                first = await reader.response.content.readuntil(b"\n\n")
            assert first == f"retry: 2000\nid: {house.position(box)}\n\n".encode()
        missed = await house.receive(box)
        token = first.decode().split("id: ")[1].strip()
        async with sse(serving.url + box.path, box.bearer, last_id=token) as reader:
            assert await ids(reader, 1) == [missed]


async def test_who_lists_and_then_streams_from_the_list_sees_each_message_once(house: StreamsHouse) -> None:
    box = await house.mailbox()
    await house.receive(box)
    listed = house.position(box)
    await house.receive_many(box, 500)
    async with house.serving() as serving, sse(f"{serving.url}{box.path}?after={listed}", box.bearer) as reader:
        await house.receive_many(box, 3)
        assert await ids(reader, 503) == box.messages[1:]


async def test_the_header_of_a_browser_that_comes_back_wins_over_its_address(house: StreamsHouse) -> None:
    box = await house.mailbox()
    begin = house.position(box)
    await house.receive(box)
    seen = house.position(box)
    await house.receive(box)
    async with (
        house.serving() as serving,
        sse(serving.url + box.path + f"?after={begin}", box.bearer, last_id=seen) as reader,
    ):
        assert await ids(reader, 1) == box.messages[1:]


async def test_without_a_token_only_what_comes_from_now_on_is_told(house: StreamsHouse) -> None:
    box = await house.mailbox()
    await house.receive(box)
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as reader:
        await until(lambda: len(serving.live.streams) == 1)
        await house.receive(box)
        assert await ids(reader, 1) == box.messages[1:]


async def test_what_can_be_read_before_a_stream_opens_is_not_told_by_it(
    house: StreamsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the tail of this process hears of it later than the tables do."""
    box = await house.mailbox()
    held = HeldBack(house, monkeypatch)
    await house.receive(box)  # for this one the tail was waiting already
    await house.receive(box)
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as reader:
        await until(lambda: len(serving.live.streams) == 1 and bool(held.found))
        held.let_go()
        await house.receive(box)
        assert await ids(reader, 1) == box.messages[2:]


async def test_who_comes_back_with_what_the_tables_have_and_the_tail_has_not_hears_what_follows_once(
    house: StreamsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list's position comes from the tables: it is no token of another log, though this process has yet to hear of it."""
    box = await house.mailbox()
    held = HeldBack(house, monkeypatch)
    await house.receive(box)  # for this one the tail was waiting already
    await house.receive(box)
    after = house.position(box)
    await house.receive(box)
    async with house.serving() as serving, sse(f"{serving.url}{box.path}?after={after}", box.bearer) as reader:
        await until(lambda: bool(held.found))
        await reader.response.content.readuntil(b"\n\n")  # the stream has begun, and looked at its token
        held.let_go()
        await house.receive(box)
        assert await ids(reader, 2) == box.messages[2:]


async def test_nothing_is_told_before_it_can_be_read(house: StreamsHouse) -> None:
    """The tail knows of a mail while its row is not committed: the frame waits, and so does a stream that resumes."""
    box = await house.mailbox()
    begin = house.position(box)
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as live:
        await until(lambda: len(serving.live.streams) == 1)
        async with house.pool.acquire() as connection, connection.transaction():
            await connection.execute("lock table feed in exclusive mode")
            end = await house.append_unfolded([house.mail(box)], box.owner)
            await until(lambda: house.tail.position("mailbox.events", house.partition_of(box.owner)) >= end)
            with pytest.raises(TimeoutError):
                await live.next(seconds=0.3)
            resuming = asyncio.create_task(_first_of(f"{serving.url}{box.path}?after={begin}", box.bearer))
            await until(lambda: len(serving.live.streams) == 2)
            done, _ = await asyncio.wait([resuming], timeout=0.3)
            assert not done
        assert await resuming == box.messages[0]
        assert await ids(live, 1) == box.messages


async def _first_of(url: str, headers: dict[str, str]) -> str:
    async with sse(url, headers) as reader:
        return (await ids(reader, 1))[0]


async def test_a_mail_that_is_parsed_later_is_told_when_it_is_shown(house: StreamsHouse) -> None:
    """Then from its envelope, because nothing else could be read of it."""
    box = await house.mailbox()
    begin = house.position(box)
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as live:
        await until(lambda: len(serving.live.streams) == 1)
        mail, _ = await house.receive_slowly(box)
        async with sse(serving.url + box.path, box.bearer, last_id=begin) as resumed:
            for reader in (live, resumed):
                event = await reader.next()
                assert event is not None
                assert event.facts["message_id"] == mail.message
                assert event.facts["from_address"] == "bounce@example.org"
                assert event.facts["subject"] is None
                said = datetime.fromisoformat(event.facts["received_at"])
                assert abs(said - mail.received_at) < timedelta(milliseconds=2)


async def test_a_message_whose_key_is_gone_is_told_without_what_it_said(house: StreamsHouse) -> None:
    box = await house.mailbox()
    await house.keyring.destroy(box.mailbox)
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as reader:
        await until(lambda: len(serving.live.streams) == 1)
        await house.receive(box)
        event = await reader.next()
        assert event is not None
        assert (event.facts["from_address"], event.facts["subject"]) == (None, None)


async def test_a_summary_is_opened_once_for_all_who_watch(house: StreamsHouse) -> None:
    box = await house.mailbox()
    begin = house.position(box)
    async with house.serving() as serving, asyncio.TaskGroup() as group:
        readers = [group.create_task(_first_of(serving.url + box.path, box.bearer)) for _ in range(20)]
        await until(lambda: len(serving.live.streams) == 20)
        message = await house.receive(box)
        assert {await reader for reader in readers} == {message}
        for _ in range(3):
            assert await _first_of(f"{serving.url}{box.path}?after={begin}", box.bearer) == message
        assert serving.live.frames.opened == 1


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "mailbox.events-0",
        "send.events-0:1",
        "mailbox.events-9:1",
        "mailbox.events-0:999999999,mailbox.events-1:999999999",
        "mailbox.events-0:-1",
        "mailbox.events-0:" + "9" * 19,
        "," * 5000,
    ],
)
async def test_a_token_that_is_none_of_ours_hears_reset_and_everything_there_is(
    house: StreamsHouse, token: str
) -> None:
    box = await house.mailbox()
    oldest = await house.receive(box)
    async with house.serving() as serving:
        async with sse(serving.url + box.path, box.bearer, last_id=token) as reader:
            reset = await reader.next()
            assert reset is not None
            assert reset.type == "reset"
            assert reset.facts == {"event": "reset", "oldest": reset.id}
            assert await ids(reader, 1) == [oldest]
            await house.receive(box)
            assert await ids(reader, 1) == box.messages[1:]
        async with sse(serving.url + box.path, box.bearer, last_id=reset.id) as reader:
            assert await ids(reader, 2) == box.messages


async def test_a_token_older_than_what_is_kept_hears_reset(house: StreamsHouse) -> None:
    box = await house.mailbox()
    begin = house.position(box)
    await house.receive(box)
    await house.receive(box)
    await house.pool.execute("update feed set at = at - interval '31 days' where message = $1", box.messages[0])
    try:
        async with house.serving() as serving, sse(serving.url + box.path, box.bearer, last_id=begin) as reader:
            reset = await reader.next()
            assert reset is not None
            assert reset.type == "reset"
    finally:
        await house.pool.execute("delete from feed where message = $1", box.messages[0])


async def test_the_end_of_a_mailbox_is_told_and_the_next_request_is_204(house: StreamsHouse) -> None:
    for end, reason in ((house.expire, "expired"), (house.delete, "deleted")):
        box = await house.mailbox()
        async with house.serving() as serving:
            async with sse(serving.url + box.path, box.bearer) as reader:
                await until(lambda live=serving.live: len(live.streams) == 1)
                message = await house.receive(box)
                await end(box)
                assert await ids(reader, 1) == [message]
                event = await reader.next()
                assert event is not None
                assert event.type == "inbox.expired"
                assert event.facts == {"event": "inbox.expired", "reason": reason}
                assert await reader.next() is None
            await until(lambda live=serving.live: len(live.streams) == 0)
            async with sse(serving.url + box.path, box.bearer, last_id=event.id) as reader:
                assert reader.response.status == 204


async def test_a_mailbox_whose_time_has_passed_ends_even_where_nothing_says_so(house: StreamsHouse) -> None:
    box = await house.mailbox(seconds=1)
    kept = await house.mailbox(seconds=1)
    async with (
        house.serving(turn_seconds=0.5) as serving,
        sse(serving.url + box.path, box.bearer) as reader,
        sse(serving.url + kept.path, kept.bearer) as extended,
    ):
        await house.pool.execute(
            "update mailboxes set expires_at = now() + interval '1 hour' where mailbox = $1", kept.mailbox
        )
        event = await reader.next(seconds=10)
        assert event is not None
        assert event.type == "inbox.expired"
        with pytest.raises(TimeoutError):
            await extended.next(seconds=1.2)
        message = await house.receive(kept)
        assert await ids(extended, 1) == [message]


async def test_who_may_not_watch_hears_why(house: StreamsHouse) -> None:
    box, other = await house.mailbox(), await house.mailbox()
    _, _, key = await house.account()
    async with house.serving() as serving, aiohttp.ClientSession() as session:
        for headers, query, status, code in (
            ({}, "", 401, "credentials_missing"),
            ({"Authorization": "Bearer nonsense"}, "", 401, "credentials_invalid"),
            ({}, "?token=uct_nonsense", 401, "credentials_invalid"),
            (other.bearer, "", 404, "not_found"),
            ({}, f"?api_key={key}", 404, "not_found"),
            ({"Origin": "https://evil.example"}, f"?api_key={key}", 403, "foreign_origin"),
            ({"Origin": "http://[x"}, f"?api_key={key}", 403, "foreign_origin"),
            ({"Origin": "http://[x"}, "", 401, "credentials_missing"),
        ):
            async with session.get(serving.url + box.path + query, headers=headers) as response:
                assert response.status == status
                assert (await response.json(content_type="application/problem+json"))["code"] == code
        async with session.post(serving.url + box.path, headers=box.bearer) as response:
            assert response.status == 405
            assert response.headers["Allow"] == "GET"
        async with session.get(f"{serving.url}{box.path}?token={box.token}") as response:
            assert response.status == 200


async def test_a_token_that_is_ahead_of_this_process_is_waited_for(house: StreamsHouse) -> None:
    """Another process may have told its client of a position that this one is just about to hear of."""
    box = await house.mailbox()
    topic, end = house.position(box).split(":")
    ahead = f"{topic}:{int(end) + 1}"
    async with house.serving() as serving, sse(serving.url + box.path, box.bearer, last_id=ahead) as reader:
        await until(lambda: len(serving.live.streams) == 1)
        await house.receive(box)
        await house.receive(box)
        assert await ids(reader, 1) == box.messages[1:]
