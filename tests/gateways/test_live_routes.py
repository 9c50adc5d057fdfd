"""From the routes to the stream: what the API answers as a position is where `/v1/events` goes on from."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from gateways.http.admission import Admission
from gateways.http.live import Live
from gateways.local_servers import Servers
from tests.support.connected import person
from tests.support.http_house import HttpHouse, bearer, http_house
from tests.support.servers import create_database, drop_database
from tests.support.sse_client import sse
from tests.support.streamed_accounts import read
from tests.support.streams_house import serving_live


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"routes_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


@asynccontextmanager
async def streaming(house: HttpHouse) -> AsyncIterator[str]:
    """Where the streams of this house are."""
    parts = house.house
    live = Live(Admission(house.services, parts.tail), parts.tail, parts.folded, parts.pool, parts.keyring)
    async with serving_live(live) as url:
        yield f"{url}/v1/events"


async def test_a_sends_and_a_connections_position_is_where_the_stream_goes_on(house: HttpHouse) -> None:
    """What the stream says last is what the API then answers."""
    account, key = await house.account()
    ada = await person(house, account, key)
    connection = await ada.connect()
    when = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    asked = {"userId": ada.id, "subject": "Hello", "body": "x", "bodyFormat": "text", "to": "bob@example.org"}
    async with house.http.post(
        f"{house.url}/v1/messages/send", headers=bearer(key), json=asked | {"scheduledAt": when}
    ) as answer:
        assert answer.status == 202
        position, send = answer.headers["X-Log-Position"], (await answer.json())["messageId"]
    async with house.http.delete(f"{house.url}/v1/connections/{connection}", headers=bearer(key)) as answer:
        assert answer.status == 204
        revoked = answer.headers["X-Log-Position"]
    async with streaming(house) as url:
        async with sse(f"{url}?api_key={key}", last_id=position) as reader:
            (event,) = await read(reader, 1)
        async with (
            sse(f"{url}?api_key={key}", last_id=event.id) as later,
            sse(url, bearer(key), last_id=revoked) as other,
        ):
            async with house.http.post(f"{house.url}/api/v1/mailboxes", headers=bearer(key)) as answer:
                assert answer.status == 201
            # Of its connections as well: that one was revoked before the id of the send's end was given out.
            assert [one.type for one in await read(later, 1)] == ["mailbox.created"]
            assert "connection.revoked" not in {one.type for one in await read(other, 1)}
    facts = {name: event.facts[name] for name in ("type", "messageId", "userId", "status", "code")}
    assert facts == {
        "type": "send.cancelled",
        "messageId": send,
        "userId": ada.id,
        "status": "cancelled",
        "code": "connection_revoked",
    }
    async with house.http.get(f"{house.url}/v1/messages/{send}", headers=bearer(key)) as answer:
        assert (await answer.json())["status"] == "cancelled"
