"""Who lists sends or connections and streams from the list's position hears of each change once, and of no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateways.http.admission import Admission
from gateways.http.live import Live
from gateways.http.resume import places_in
from gateways.local_servers import Servers
from schemas.topics import CONNECTION_EVENTS, SEND_EVENTS
from tests.support.asked_sends import AskedSends, Writer, asked_sends
from tests.support.sse_client import sse
from tests.support.streams_house import serving_live

LISTS = ("/v1/messages", "/v1/connections")


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AskedSends]:
    async with asked_sends(servers, "list_positions", tmp_path_factory.mktemp("house")) as house:
        yield house


@asynccontextmanager
async def streams(house: AskedSends) -> AsyncIterator[str]:
    """The URL of the streams of this house."""
    services, parts = house.http.services, house.http.house
    live = Live(Admission(services, parts.tail), parts.tail, parts.folded, parts.pool, parts.keyring)
    async with serving_live(live) as url:
        yield url


def scheduled(hours: int) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


async def listed(ada: Writer, where: str, **headers: str) -> tuple[list[dict[str, Any]], str]:
    """What is listed, and its position."""
    status, body, said = await ada.house.asked("GET", where, ada.key, headers=headers)
    assert status in (200, 304), body
    return body.get("items", []), said["X-Log-Position"]


@pytest.mark.parametrize("where", LISTS)
async def test_a_change_after_a_list_is_told_once_from_the_list_s_position(house: AskedSends, where: str) -> None:
    ada = await house.writer()
    kept, moved = [await ada.taken(scheduledAt=scheduled(1)) for _ in range(2)]
    items, position = await listed(ada, where)
    assert {one["id"] for one in items} == ({kept, moved} if where == LISTS[0] else {ada.connection})
    assert {topic for topic, _ in places_in(position)} == {SEND_EVENTS.name, CONNECTION_EVENTS.name}
    said = {"json": {"scheduledAt": scheduled(2)}}
    status, _, _ = await house.asked("PATCH", f"/v1/messages/{moved}", ada.key, **said)
    assert status == 200
    other = await ada.connect()
    status, _, _ = await house.asked("DELETE", f"/v1/connections/{other}", ada.key)
    assert status == 204
    async with streams(house) as url, sse(f"{url}/v1/events?api_key={ada.key}&after={position}") as reader:
        found = [await reader.next() for _ in range(3)]
        last = await ada.taken(scheduledAt=scheduled(1))
        found.append(await reader.next())
    told = [(one.type, one.facts.get("messageId") or one.facts["connectionId"]) for one in found if one]
    assert sorted(told[:3]) == [
        ("connection.authorised", other),
        ("connection.revoked", other),
        ("send.moved", moved),
    ]
    assert told[3] == ("send.requested", last)


@pytest.mark.parametrize("where", LISTS)
async def test_a_list_s_position_can_be_waited_for_and_comes_without_the_list_as_well(
    house: AskedSends, where: str
) -> None:
    ada = await house.writer()
    _, _, said = await house.asked("GET", where, ada.key)
    _, again = await listed(ada, where, **{"If-None-Match": said["ETag"], "X-After-Position": said["X-Log-Position"]})
    assert places_in(again).keys() == places_in(said["X-Log-Position"]).keys()
    ahead = ",".join(f"{topic}-{number}:999999" for topic, number in places_in(again))
    status, body, _ = await house.asked("GET", where, ada.key, headers={"X-After-Position": ahead})
    assert (status, body["code"]) == (503, "outcome_unknown")
    for wrong in (f"{again},x", "webhooks-0:1", ""):
        status, body, _ = await house.asked("GET", where, ada.key, headers={"X-After-Position": wrong})
        assert (status, body["code"]) == (400, "invalid_request"), (wrong, body)
