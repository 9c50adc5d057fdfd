"""Coming back, a thousand times, while mail keeps coming in: nothing is missed and nothing is told twice."""

import asyncio
import random
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateways.local_servers import Servers
from tests.support.sse_client import sse
from tests.support.streams_house import Box, Serving, StreamsHouse, streams_house

RECONNECTS = 1000
READERS = 5


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


class Returning:
    """A reader who breaks off at any moment, and comes back with the last id it has seen."""

    def __init__(self, serving: Serving, box: Box, token: str, luck: random.Random) -> None:
        self.serving, self.box, self.token, self.luck = serving, box, token, luck
        self.seen: list[str] = []

    async def come_and_go(self, times: int) -> None:
        for _ in range(times):
            await self.come(self.luck.choice([0.0, 0.001, 0.005, 0.02, 0.05]), self.luck.choice([1, 3, 100]))

    async def come(self, seconds: float, most: int) -> None:
        """Reads so many events at the most, or for so long."""
        async with sse(self.serving.url + self.box.path, self.box.bearer, last_id=self.token) as reader:
            try:
                for _ in range(most):
                    event = await reader.next(seconds=seconds)
                    if event is None:
                        return
                    assert event.type == "new_message"
                    self.saw(event.facts["message_id"], event.id)
            except TimeoutError:
                pass

    def saw(self, message: str, token: str) -> None:
        self.seen.append(message)
        self.token = token

    async def read_all(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.seen) < count:
                await self.come(5, count - len(self.seen))


class ReturningBySocket(Returning):
    """The same over a WebSocket."""

    async def come(self, seconds: float, most: int) -> None:
        url = f"{self.serving.url}/ws/inbox/{self.box.address}?token={self.box.token}&after={self.token}"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            try:
                for _ in range(most):
                    async with asyncio.timeout(seconds):
                        message = await socket.receive()
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    facts = message.json()
                    assert facts["event"] == "new_message"
                    self.saw(facts["message_id"], facts["id"])
            except TimeoutError:
                pass


@pytest.mark.timeout(240)
async def test_a_thousand_reconnects_during_ongoing_mail_miss_and_repeat_nothing(house: StreamsHouse) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    luck = random.Random(seed)
    boxes = [await house.mailbox() for _ in range(READERS)]
    async with house.serving() as serving:
        kinds = [Returning, Returning, Returning, ReturningBySocket, ReturningBySocket]
        readers = [
            kind(serving, box, house.position(box), random.Random(seed + number))
            for number, (kind, box) in enumerate(zip(kinds, boxes, strict=True))
        ]
        coming = [asyncio.create_task(reader.come_and_go(RECONNECTS // READERS)) for reader in readers]
        while not all(task.done() for task in coming):
            box = luck.choice(boxes)
            await house.append_unfolded([house.mail(box) for _ in range(luck.choice([1, 1, 1, 5, 30]))], box.owner)
            await asyncio.sleep(luck.choice([0, 0.005, 0.02]))
        await asyncio.gather(*coming)
        await asyncio.gather(*[reader.read_all(len(box.messages)) for reader, box in zip(readers, boxes, strict=True)])
        for reader, box in zip(readers, boxes, strict=True):
            assert len(box.messages) > 50
            assert reader.seen == box.messages
