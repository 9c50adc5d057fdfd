"""Who has a link can neither fill a process with what is read for them, nor ask for more than the account may."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateways.http import downloads
from gateways.http.downloads import Room
from gateways.http.v1.attachment_links import signed_link
from gateways.stores.blobs import Blobs
from gateways.stores.rates import Limit
from tests.support.http_house import HttpHouse, bearer, served
from tests.support.uploads import uploaded
from tests.support.waiting import until

BODY = b"x" * 200_000
ASKED = 200
#: That the client of a house opens at once.
CONNECTIONS = 100
FIT = 3


class Counting:
    """A store of blobs that reads none before its gate is open."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.gate = asyncio.Event()
        self.under_way = self.most = 0

    async def read(self, *said: Any) -> bytes:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        return await self._blobs.read(*said)


@pytest.fixture
async def link(house: HttpHouse, whose: tuple[str, str, str]) -> AsyncIterator[str]:
    account, key, user = whose
    made = await uploaded(house, key, user, BODY)
    return signed_link(house.services.keyset, made["id"], account, datetime.now(UTC) + timedelta(minutes=5))


@pytest.mark.parametrize("by_link", [True, False], ids=("a link", "an API key"))
async def test_no_more_is_read_at_once_than_there_is_room_for(
    house: HttpHouse, whose: tuple[str, str, str], link: str, by_link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(len(BODY) * FIT + 1)
    monkeypatch.setattr(downloads, "ROOM", room)
    counting = Counting(house.services.blobs)
    blobs: Any = counting
    async with served(replace(house.services, blobs=blobs, metrics=CollectorRegistry())) as url:
        where, who = (link, {}) if by_link else (link.partition("?")[0], bearer(whose[1]))
        headers = {"Range": "bytes=0-0", **who}

        async def asked() -> tuple[int, bytes]:
            async with house.http.get(url + where, headers=headers) as answer:
                return answer.status, await answer.read()

        all_asked = [asyncio.ensure_future(asked()) for _ in range(ASKED)]

        async def all_are_known() -> bool:
            return counting.under_way + sum(one.done() for one in all_asked) >= CONNECTIONS

        await until(all_are_known)
        counting.gate.set()
        said = await asyncio.gather(*all_asked)
    assert counting.most == FIT
    assert {status for status, _ in said} == {206, 503}
    assert all(body == b"x" for status, body in said if status == 206)
    assert room.left == len(BODY) * FIT + 1


async def test_links_use_an_allowance_of_their_account(
    house: HttpHouse, whose: tuple[str, str, str], link: str
) -> None:
    more: dict[str, Any] = {"rates_on": True, "request_limit": Limit("requests", 3, 60)}
    async with served(replace(house.services, metrics=CollectorRegistry(), **more)) as url:
        said = []
        for _ in range(4):
            async with house.http.get(url + link) as answer:
                said.append((answer.status, "RateLimit" in answer.headers))
        assert said == [(200, True)] * 3 + [(429, True)]
        async with house.http.get(url + "/v1/attachments", headers=bearer(whose[1])) as answer:
            assert answer.status == 200, "its API keys have theirs"
