"""The stream over an account tells of its users' sends and connections, which stand in many partitions of two more topics."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from gateways.http.account_stream import AccountStream
from gateways.http.resume import Place, places_in
from gateways.local_servers import Servers
from tests.support.held_client import HeldClient
from tests.support.sse_client import SseEvent, SseReader, sse
from tests.support.streamed_accounts import (
    CONNECTIONS,
    FEEDS,
    MAILBOXES,
    SENDS,
    Account,
    Mark,
    begun,
    happen,
    interleaved,
    marked,
    read,
    read_to,
)
from tests.support.streams_house import HeldBack, Serving, StreamsHouse, streams_house, until

PARTITIONS = 3


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house"), partitions=PARTITIONS) as house:
        yield house


def watching(serving: Serving, account: Account) -> str:
    return f"{serving.url}/v1/events?api_key={account.key}"


def size(places: dict[Place, list[Mark]]) -> int:
    return sum(map(len, places.values()))


def left(wanted: dict[Place, list[Mark]], seen: dict[Place, list[Mark]]) -> dict[Place, list[Mark]]:
    """What is still to come after what was seen, which is the beginning of each place."""
    assert all(wanted[place][: len(marks)] == marks for place, marks in seen.items())
    rest = {place: marks[len(seen.get(place, [])) :] for place, marks in wanted.items()}
    return {place: marks for place, marks in rest.items() if marks}


async def test_events_of_three_topics_are_told_once_each_from_every_id_that_was_given_out(house: StreamsHouse) -> None:
    """Live ids and those of one who caught up, each tried; and of another account, in the same places, nothing."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    mine, other = await Account.opened(house), await Account.opened(house)
    steps = interleaved([*mine.lives(), *other.lives()], random.Random(seed))
    wanted = mine.wanted(steps)
    assert wanted.keys() == set(mine.places)
    async with house.serving(turn_seconds=0.5) as serving:
        url = watching(serving, mine)
        async with sse(url) as live:
            begin = await begun(live)
            await happen(house, steps)
            heard = await read(live, size(wanted))
        async with sse(url, last_id=begin) as again:
            caught_up = await read(again, size(wanted))
        for told in (heard, caught_up):
            assert mine.heard(told) == wanted
            for seen, token in enumerate([begin, *[event.id for event in told]]):
                rest = left(wanted, mine.heard(told[:seen]))
                async with sse(url, last_id=token) as resumed:
                    assert mine.heard(await read(resumed, size(rest))) == rest, (seen, token)


@pytest.mark.parametrize(
    ("scopes", "sees"),
    [
        ((), {"mailbox", "send", "connection"}),
        (("events:read",), {"mailbox"}),
        (("events:read", "sends:read"), {"mailbox", "send"}),
        (("events:read", "sends:write"), {"mailbox", "send"}),
        (("events:read", "connections:read"), {"mailbox", "connection"}),
    ],
)
async def test_a_key_hears_of_what_its_scopes_let_it_see(
    house: StreamsHouse, scopes: tuple[str, ...], sees: set[str]
) -> None:
    """Live, from the tables, and where it asks for exactly that; also while another key of its account sees everything."""
    mine = await Account.opened(house, *scopes)
    _, other_key = await house.key(mine.account)
    async with house.serving() as serving:
        url = watching(serving, mine)
        async with sse(url) as live, sse(f"{serving.url}/v1/events?api_key={other_key}") as everything:
            begin = await begun(live)
            await happen(house, [*mine.sends(mine.users[2]), *mine.connections(mine.users[2]), *mine.inboxes(1)])
            await offered(house, serving, mine)
            async with (
                sse(url, last_id=begin) as resumed,
                sse(url, last_id=f"{SENDS}-2:1") as of_sends,
                sse(url, last_id=f"{CONNECTIONS}-2:1") as of_connections,
            ):
                await until(lambda: [stream._live for stream in serving.live.streams._all()] == [True] * 5)
                (last,) = mine.inboxes(1)
                await happen(house, [last])
                for reader, sees_here in (
                    (live, sees),
                    (resumed, sees),
                    (everything, {"mailbox", "send", "connection"}),
                ):
                    heard = await read_to(reader, last)
                    assert {event.type.split(".")[0] for event in heard} == sees_here
                for reader, word in ((of_sends, "send"), (of_connections, "connection")):
                    heard = await read_to(reader, last)
                    expected = {word} if word in sees else {"reset", *sees}
                    assert {event.type.split(".")[0] for event in heard} == expected


async def offered(house: StreamsHouse, serving: Serving, account: Account, *topics: str) -> None:
    """Returns once everything that is folded (of these topics) has been told to who is there."""
    told, ends = serving.live._fanout.told, house.folded.positions
    places = [place for place in account.places if not topics or place[0] in topics]
    await until(lambda: all(told(place) == ends[FEEDS[place[0]], *place] for place in places))


async def test_a_session_token_hears_nothing_of_its_accounts_users(house: StreamsHouse) -> None:
    mine = await Account.opened(house)
    box = await house.mailbox(owner=mine.account)
    async with house.serving() as serving, sse(f"{serving.url}/v1/events?token={box.token}") as reader:
        assert places_in(await begun(reader)).keys() == {mine.places[0]}
        await happen(house, [*mine.sends(mine.users[0]), *mine.connections(mine.users[1])])
        await house.delete(box)
        assert [event.type for event in await read(reader, 1)] == ["mailbox.deleted"]


async def test_a_token_of_one_place_means_the_others_from_now_on(house: StreamsHouse) -> None:
    """As every `X-Log-Position`; the first bytes carry one that names all, should the connection break before any event."""
    mine = await Account.opened(house)
    before = places_in(mine.now())
    sends, connections = [mine.sends(user) for user in mine.users], [mine.connections(user) for user in mine.users]
    await happen(house, [*mine.inboxes(1), *[life[0] for life in (*sends, *connections)]])
    firsts = {MAILBOXES: "mailbox.extended", SENDS: "send.requested", CONNECTIONS: "connection.authorised"}
    async with house.serving() as serving:
        for place in mine.places:
            asked = f"{place[0]}-{place[1]}:{before[place]}"
            async with sse(f"{watching(serving, mine)}&after={asked}") as reader:
                whole = places_in(await begun(reader))
                assert whole.keys() == set(mine.places)
                assert {known for known in mine.places if whole[known] == before[known]} == {place}
                (last,) = mine.inboxes(1)
                await happen(house, [last])
                heard = [event.type for event in await read_to(reader, last)]
                while firsts[place[0]] not in heard:  # of another place: each has an order of its own
                    assert place[0] != MAILBOXES
                    heard += [event.type for event in await read(reader, 1)]


@pytest.mark.parametrize(
    "token", ["garbage", "account.events-0:1", f"{SENDS}-0:999999", f"{SENDS}:1.1.x", f"{SENDS}-7:1", ".", f"{SENDS}:"]
)
async def test_a_token_of_elsewhere_hears_reset_and_everything_there_is(house: StreamsHouse, token: str) -> None:
    mine = await Account.opened(house)
    steps = [*mine.inboxes(1), mine.sends(mine.users[0])[0], mine.connections(mine.users[2])[0]]
    await happen(house, steps)
    async with house.serving() as serving:
        async with sse(watching(serving, mine), last_id=token) as reader:
            reset, *all_of = await read(reader, 4)
            assert reset.type == "reset"
            assert reset.facts == {"event": "reset", "oldest": reset.id}
            assert mine.heard(all_of) == mine.wanted(steps)
        async with sse(watching(serving, mine), last_id=reset.id) as reader:
            assert mine.heard(await read(reader, 3)) == mine.wanted(steps)


async def test_a_token_older_than_what_is_kept_of_one_place_hears_reset(house: StreamsHouse) -> None:
    mine = await Account.opened(house)
    begin, steps = mine.now(), [*mine.inboxes(1), mine.sends(mine.users[1])[0]]
    await happen(house, steps)
    aged = "update send_feed set at = at - interval '31 days' where owner = $1"
    await house.pool.execute(aged, mine.account)
    async with house.serving() as serving, sse(watching(serving, mine), last_id=begin) as reader:
        reset, *all_of = await read(reader, 3)
        assert reset.type == "reset"
        assert mine.heard(all_of) == mine.wanted(steps)
    await house.pool.execute(aged.replace("- interval", "+ interval"), mine.account)


async def test_nothing_is_told_before_its_row_is_there(house: StreamsHouse) -> None:
    """Neither to those who listen nor to those who come back; what happens elsewhere is not held up by it."""
    mine = await Account.opened(house)
    (waits, *_), inboxes = mine.sends(mine.users[0]), mine.inboxes(1)
    async with house.serving() as serving, sse(watching(serving, mine)) as live:
        await until(lambda: len(serving.live.streams) == 1)
        async with house.pool.acquire() as connection:
            held = connection.transaction()
            await held.start()
            await connection.execute("lock table send_feed in exclusive mode")
            end = await house.append_unfolded([waits.event], waits.key, waits.topic)
            await until(lambda: house.tail.position(SENDS, 0) >= end)
            await house.append_all([inboxes[0].event], mine.account)
            (event,) = await read(live, 1)
            assert event.type == "mailbox.extended"
            async with sse(watching(serving, mine), last_id=event.id) as resumed:
                readings = [asyncio.create_task(read(reader, 1)) for reader in (live, resumed)]
                done, _ = await asyncio.wait(readings, timeout=0.3)
                assert not done
                await held.rollback()
                assert [[one.facts["messageId"] for one in await reading] for reading in readings] == [
                    [waits.event.send]
                ] * 2


async def test_what_could_be_read_before_a_stream_began_follows_none_of_its_ids(
    house: StreamsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the tail of this process hears of it later than the tables do, and later than of what happens elsewhere."""
    mine = await Account.opened(house)
    held = HeldBack(house, monkeypatch, SENDS)
    for _ in range(2):  # for the first of them the tail was waiting already
        await happen(house, mine.sends(mine.users[0]))
    (one, two) = mine.inboxes(2)
    async with house.serving(turn_seconds=0.2) as serving, sse(watching(serving, mine)) as reader:
        await begun(reader)
        await until(lambda: bool(held.found))
        await happen(house, [one])
        (event,) = await read(reader, 1)
        assert marked(event.facts) == one.mark
        async with sse(watching(serving, mine), last_id=event.id) as resumed:
            await until(lambda: [stream._live for stream in serving.live.streams._all()] == [True] * 2)
            held.let_go()
            await offered(house, serving, mine)
            await happen(house, [two])
            assert await read_to(reader, two) == await read_to(resumed, two) == []


async def test_what_waits_for_a_slow_client_has_ids_that_repeat_nothing(
    house: StreamsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was offered before this process had heard of all that could be read when the stream began, and written after."""
    mine = await Account.opened(house)
    held = HeldBack(house, monkeypatch, SENDS)
    for _ in range(2):  # for the first of them the tail was waiting already
        await happen(house, mine.sends(mine.users[0]))
    one, two = mine.inboxes(2)
    async with house.serving() as serving:
        client = HeldClient("/v1/events", mine.key)
        client.read(2)
        request = asyncio.create_task(serving.live(client.scope, client.receive, client.send))
        await until(lambda: len(client.sent) == 2 and bool(held.found))
        await happen(house, [one])
        await until(lambda: client.is_sending)
        await happen(house, [two])
        await offered(house, serving, mine, MAILBOXES)
        held.let_go()
        await offered(house, serving, mine)
        client.read()
        await until(lambda: len(client.told) == 2)
        client.gone.set()
        await request
        happened = [one, two]
        for seen, token in enumerate(client.ids[-2:], 1):
            (end,) = mine.inboxes(1)
            async with sse(watching(serving, mine), last_id=token) as resumed:
                await happen(house, [end])
                marks = [marked(event.facts) for event in await read_to(resumed, end)]
                assert marks == [step.mark for step in happened[seen:]]
            happened.append(end)


async def test_what_a_client_could_not_keep_while_it_caught_up_is_read_again(house: StreamsHouse) -> None:
    """Far more happens than may wait, in every topic, while the client is being told of what was before."""
    mine = await Account.opened(house)
    before, begin = mine.inboxes(250), mine.now()
    await house.append_all([step.event for step in before], mine.account)
    later = interleaved(mine.lives(), random.Random(1))
    async with house.serving(queue=5) as serving:
        client = HeldClient("/v1/events", mine.key, begin)
        client.read(2 + 1)
        request = asyncio.create_task(serving.live(client.scope, client.receive, client.send))
        await until(lambda: len(client.told) == 200 and client.is_sending)
        await happen(house, later)
        await offered(house, serving, mine)
        client.read()
        wanted = mine.wanted([*before, *later])
        await until(lambda: len(client.told) >= size(wanted))
        client.gone.set()
        await request
    assert mine.heard(SseEvent(facts["type"], "", facts) for facts in client.told) == wanted


async def test_an_idle_stream_keeps_no_place_of_its_own(house: StreamsHouse) -> None:
    """Where it is, is where all are, also for one that has caught up; and what they are given as ids is good."""
    mine = await Account.opened(house)
    begin, steps = mine.now(), mine.sends(mine.users[0])
    await happen(house, steps)
    async with house.serving(turn_seconds=0.2) as serving:
        url = watching(serving, mine)
        async with sse(url) as idle, sse(url, last_id=begin) as resumed:
            await begun(idle)
            await read(resumed, size(mine.wanted(steps)))
            streams = [stream for stream in serving.live.streams._all() if isinstance(stream, AccountStream)]
            assert len(streams) == 2
            await until(lambda: all(stream._at is None for stream in streams))
            await happen(house, mine.connections(mine.users[1])[:1])
            (one,), (two,) = await read(idle, 1), await read(resumed, 1)
            assert one == two
        async with sse(url, last_id=one.id) as again:
            (last,) = mine.inboxes(1)
            await happen(house, [last])
            assert await read_to(again, last) == []


class Returning:
    """A reader of an account who breaks off at any moment, and comes back with the last id seen."""

    def __init__(self, account: Account, luck: random.Random) -> None:
        self.account, self.luck, self.token = account, luck, account.now()
        self.heard: list[SseEvent] = []
        self.comings = 0

    async def follow(self, serving: list[Serving], count: int) -> None:
        while len(self.heard) < count:
            self.comings += 1
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with sse(watching(serving[0], self.account), last_id=self.token) as reader:
                    await self._read(reader, self.luck.choice([0.0, 0.005, 0.05, 0.5]), self.luck.choice([1, 3, 50]))
            await asyncio.sleep(0.005)

    async def _read(self, reader: SseReader, seconds: float, most: int) -> None:
        for _ in range(most):
            event = await reader.next(seconds=seconds)
            if event is None:
                return
            assert event.type != "reset"
            self.heard.append(event)
            self.token = event.id


@pytest.mark.timeout(180)
async def test_who_comes_and_goes_while_servers_are_cut_and_replaced_misses_and_repeats_nothing(
    house: StreamsHouse,
) -> None:
    """Each server knows nothing of what the one before it has told; little may wait for a client."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    luck = random.Random(seed)
    accounts = [await Account.opened(house) for _ in range(2)]
    steps = interleaved([life for account in accounts for _ in range(3) for life in account.lives()], luck)
    readers = [Returning(account, random.Random(seed + number)) for number, account in enumerate(accounts)]
    over, serving = asyncio.Event(), list[Serving]()

    async def serve() -> None:
        while not over.is_set():
            async with house.serving(queue=4, turn_seconds=0.2) as one:
                serving[:] = [one]
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), luck.choice([0.3, 0.8]))
                for stream in one.live.streams._all():
                    stream.abort()

    async def go_on() -> None:
        for step in steps:
            await house.append_unfolded([step.event], step.key, step.topic)
            await asyncio.sleep(luck.choice([0, 0, 0.002]))

    wanted = [account.wanted(steps) for account in accounts]
    serving_all = asyncio.create_task(serve())
    await until(lambda: bool(serving))
    following = [reader.follow(serving, size(all_of)) for reader, all_of in zip(readers, wanted, strict=True)]
    async with asyncio.timeout(120):
        await asyncio.gather(go_on(), *following)
    over.set()
    await serving_all
    for reader, all_of in zip(readers, wanted, strict=True):
        assert reader.account.heard(reader.heard) == all_of
        assert reader.comings > 20
