"""Opening a stream is a request like another: it is rated, and so is guessing who may."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateways.local_servers import Servers
from gateways.stores.rates import Limit
from tests.support.streams_house import StreamsHouse, streams_house

FEW = Limit("requests", 5, 60)


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house"), request_limit=FEW) as house:
        yield house


async def refusal_of_socket(session: aiohttp.ClientSession, url: str) -> int:
    """The status that a handshake is refused with."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(url)
    return refused.value.status


async def test_streams_are_opened_within_the_rate_of_a_session_token(house: StreamsHouse) -> None:
    box, other = await house.mailbox(), await house.mailbox()
    async with house.serving() as serving, aiohttp.ClientSession() as session:
        statuses = []
        for _ in range(7):
            async with session.get(serving.url + box.path, headers=box.bearer) as answer:
                statuses.append(answer.status)
        assert statuses == [200] * 5 + [429] * 2
        assert answer.headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert await refusal_of_socket(session, f"{serving.url}/ws/inbox/{box.address}?token={box.token}") == 429
        async with session.get(serving.url + other.path, headers=other.bearer) as answer:
            assert answer.status == 200


async def test_streams_are_opened_within_the_rate_of_an_api_key(house: StreamsHouse) -> None:
    """Whichever stream it is: `/v1/events`, a mailbox's, or a WebSocket."""
    account, _, key = await house.account()
    box = await house.mailbox(owner=account)
    async with house.serving() as serving, aiohttp.ClientSession() as session:
        socket = f"{serving.url}/ws/inbox/{box.address}?api_key={key}"
        statuses = []
        for path in ("/v1/events", box.path) * 2:
            async with session.get(f"{serving.url}{path}?api_key={key}") as answer:
                statuses.append(answer.status)
        async with session.ws_connect(socket):
            pass
        for path in ("/v1/events", box.path):
            async with session.get(f"{serving.url}{path}?api_key={key}") as answer:
                statuses.append(answer.status)
        assert statuses == [200] * 4 + [429] * 2
        assert await refusal_of_socket(session, socket) == 429


async def test_guesses_at_streams_are_counted_and_who_knows_is_let_in(house: StreamsHouse) -> None:
    box = await house.mailbox()
    async with house.serving() as serving, aiohttp.ClientSession() as session:
        statuses = []
        for _ in range(19):
            async with session.get(f"{serving.url}{box.path}?token=uct_guessed") as answer:
                statuses.append(answer.status)
        socket = f"{serving.url}/ws/inbox/{box.address}?token="
        statuses += [await refusal_of_socket(session, f"{socket}uct_guessed") for _ in range(2)]
        async with session.get(f"{serving.url}/v1/events?api_key=pl_live_guessed") as answer:
            statuses.append(answer.status)
        assert statuses == [401] * 19 + [403, 429, 429]
        async with session.ws_connect(f"{socket}{box.token}"):
            pass
