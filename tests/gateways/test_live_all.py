"""The stream over everything a caller may see."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import get_args

import aiohttp
import pytest

from domain.mailbox_events import MessageRejected, RejectReason
from gateways.local_servers import Servers
from schemas.ids import new_id
from tests.support.sse_client import SseEvent, SseReader, sse
from tests.support.streams_house import StreamsHouse, streams_house, until


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamsHouse]:
    async with streams_house(servers, tmp_path_factory.mktemp("house")) as house:
        yield house


async def events(reader: SseReader, count: int) -> list[SseEvent]:
    found = []
    for _ in range(count):
        event = await reader.next()
        assert event is not None
        found.append(event)
    return found


async def test_an_account_sees_what_happens_to_all_its_mailboxes_and_to_no_others(house: StreamsHouse) -> None:
    account, _, key = await house.account()
    async with house.serving() as serving:
        async with sse(f"{serving.url}/v1/events", {"Authorization": f"Bearer {key}"}) as reader:
            await until(lambda: len(serving.live.streams) == 1)
            await house.receive(await house.mailbox())
            one, two = await house.mailbox(owner=account), await house.mailbox(owner=account)
            message = await house.receive(one)
            await house.delete(two)
            found = await events(reader, 4)
            assert [event.type for event in found] == [
                "mailbox.created", "mailbox.created", "message.received", "mailbox.deleted",
            ]  # fmt: skip
            assert [event.type for event in found] == [event.facts["type"] for event in found]
            assert [event.facts["mailboxId"] for event in found] == [one.mailbox, two.mailbox, one.mailbox, two.mailbox]
            assert [event.facts["messageId"] for event in found] == [None, None, message, None]
            assert all(event.facts["at"].endswith("Z") for event in found)
            assert serving.live.frames.opened == 0
        async with sse(f"{serving.url}/v1/events?api_key={key}", last_id=found[0].id) as resumed:
            assert await events(resumed, 3) == found[1:]


@pytest.mark.parametrize("reason", get_args(RejectReason))
async def test_a_rejected_message_says_why_live_and_to_those_who_resume(
    house: StreamsHouse, reason: RejectReason
) -> None:
    account, _, key = await house.account()
    box = await house.mailbox(owner=account)
    begin = house.position(box)
    rejected = MessageRejected(new_id("msg"), box.mailbox, account, reason, 100, "0" * 64, datetime.now(UTC))
    async with house.serving() as serving:
        async with sse(f"{serving.url}/v1/events?api_key={key}") as reader:
            await until(lambda: len(serving.live.streams) == 1)
            await house.append(rejected, account)
            (told,) = await events(reader, 1)
        serving.live.frames.forget()
        async with sse(f"{serving.url}/v1/events?api_key={key}", last_id=begin) as resumed:
            assert await events(resumed, 1) == [told]
    assert told.type == "message.rejected"
    assert (told.facts["messageId"], told.facts["reason"]) == (rejected.message, reason)


async def test_a_session_token_sees_its_mailbox_and_ends_with_it(house: StreamsHouse) -> None:
    account, _, _ = await house.account()
    box, other = await house.mailbox(owner=account), await house.mailbox(owner=account)
    async with house.serving() as serving:
        async with sse(f"{serving.url}/v1/events?token={box.token}") as reader:
            await until(lambda: len(serving.live.streams) == 1)
            await house.receive(other)
            message = await house.receive(box)
            await house.expire(box)
            received, expired = await events(reader, 2)
            assert (received.type, received.facts["messageId"]) == ("message.received", message)
            assert (expired.type, expired.facts["mailboxId"]) == ("mailbox.expired", box.mailbox)
            assert await reader.next() is None
        async with sse(f"{serving.url}/v1/events?token={box.token}") as reader:
            assert reader.response.status == 204


async def test_a_revoked_key_ends_its_streams_and_opens_no_more(house: StreamsHouse) -> None:
    account, key_id, key = await house.account()
    box = await house.mailbox(owner=account)
    async with house.serving() as serving:
        async with (
            sse(f"{serving.url}/v1/events?api_key={key}") as everything,
            sse(f"{serving.url}{box.path}?api_key={key}") as one,
            sse(serving.url + box.path, box.bearer) as own,
        ):
            await until(lambda: len(serving.live.streams) == 3)
            await house.revoke(account, key_id)
            assert await everything.next(seconds=5) is None
            assert await one.next(seconds=5) is None
            message = await house.receive(box)
            event = await own.next()
            assert event is not None
            assert event.facts["message_id"] == message
        async with aiohttp.ClientSession() as session, session.get(f"{serving.url}/v1/events?api_key={key}") as late:
            assert late.status == 401


@pytest.mark.parametrize("scope", ["mailboxes:read", "mailboxes:write", "events:read"])
async def test_a_key_watches_what_its_scopes_say(house: StreamsHouse, scope: str) -> None:
    account, _, key = await house.account(scope)
    box = await house.mailbox(owner=account)
    async with house.serving() as serving:
        for where, allowed in (("/v1/events", scope == "events:read"), (box.path, scope.startswith("mailboxes:"))):
            async with sse(f"{serving.url}{where}?api_key={key}") as reader:
                assert reader.response.status == (200 if allowed else 403)
                if not allowed:
                    assert (await reader.response.json(content_type=None))["code"] == "scope_missing"


@pytest.mark.parametrize("query", ["", "?api_key=pl_live_x", "?token=x"])
async def test_nobody_watches_without_credentials(house: StreamsHouse, query: str) -> None:
    async with house.serving() as serving, sse(f"{serving.url}/v1/events{query}") as reader:
        assert reader.response.status == 401
        assert reader.response.headers["Content-Type"] == "application/problem+json"


async def test_a_token_of_another_partition_hears_reset_and_what_there_is(house: StreamsHouse) -> None:
    account, _, key = await house.account()
    box = await house.mailbox(owner=account)
    other = 1 - house.partition_of(account)
    async with house.serving() as serving:
        async with sse(f"{serving.url}/v1/events?api_key={key}", last_id=f"mailbox.events-{other}:1") as reader:
            reset, created = await events(reader, 2)
            assert (reset.type, created.type) == ("reset", "mailbox.created")
            assert created.facts["mailboxId"] == box.mailbox
        vector = f"account.events-0:1,{reset.id}"
        async with sse(f"{serving.url}/v1/events?api_key={key}&after={vector}") as reader:
            assert await events(reader, 1) == [created]
