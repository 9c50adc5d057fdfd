"""The page about streams says what is so."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest

from domain.mailbox_events import RejectReason
from gateways.http.live import Bounds
from gateways.http.user_feeds import USER_FEEDS
from gateways.local_servers import Servers
from projections import connection_feed, send_feed
from projections.feed import KEPT_DAYS, NAMES
from tests.support.streams_house import StreamsHouse, streams_house, until

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


async def test_the_reader_of_the_page_sees_every_message_once_and_stops_at_the_end(house: StreamsHouse) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    box = await house.mailbox()
    seen: list[str] = []
    begin = house.position(box)

    async with house.serving(turn_seconds=0.5) as serving:

        def read() -> None:
            watching = names["watch"](serving.url + box.path, box.token, begin)
            seen.extend(message["message_id"] for message in watching)

        reading = asyncio.create_task(asyncio.to_thread(read))
        await house.receive_many(box, 3)
        await until(lambda: len(seen) == 3)
        for stream in serving.live.streams._all():
            stream.abort()
        await house.receive_many(box, 3)
        await until(lambda: len(seen) == 6)
        await house.expire(box)
        await asyncio.wait_for(reading, 10)
    assert seen == box.messages


def test_the_page_gives_the_bounds_as_they_are() -> None:
    bounds = Bounds()
    assert f"| {bounds.queue}; then it is closed" in PAGE
    assert f"dropped after {bounds.reader_seconds} s" in PAGE
    assert f"| {bounds.per_owner:,} in each process" in PAGE
    assert f"| {bounds.in_all:,} in each process" in PAGE
    assert f"| {bounds.frame_bytes // 1024} KiB" in PAGE
    assert f"Every {bounds.turn_seconds} seconds" in PAGE
    assert f"every {bounds.turn_seconds * 4:.0f}\nseconds" in PAGE
    assert f"within {KEPT_DAYS} days" in PAGE


def test_the_page_names_every_event_and_every_reason_to_reject() -> None:
    assert all(f"`{name}`" in PAGE for name in (*NAMES.values(), *get_args(RejectReason)))
    for name, status in (*send_feed.TOLD.values(), *connection_feed.TOLD.values()):
        assert f"| `{name}` | `{status}`" in PAGE
    assert all(f"scope `{feed.scope}`" in PAGE for feed in USER_FEEDS.values())
