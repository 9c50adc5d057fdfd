"""Mails that two ask for at once to be tried again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateways.local_servers import Servers
from projections import send_grounds
from tests.support.asked_sends import AskedSends, asked_sends


@pytest.fixture
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AskedSends]:
    async with asked_sends(servers, "retried", tmp_path_factory.mktemp("house")) as house:
        yield house


async def test_one_that_was_tried_again_since_somebody_looked_is_not_tried_once_more(
    house: AskedSends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen its first attempt. The slower one's wish is heard when the second has come to the same end."""
    ada, looked, goes_on, grounds = await house.writer(), asyncio.Event(), asyncio.Event(), send_grounds.grounds

    async def held(*asked: Any) -> Any:
        looked.set()
        await goes_on.wait()
        return await grounds(*asked)

    await house.gmail.fail("drafts.create", user=ada.address, status=400, times=2)
    send = await ada.taken()
    await ada.becomes(send, "failed")
    where = f"/v1/messages/{send}/retry"
    with monkeypatch.context() as patched:
        patched.setattr(send_grounds, "grounds", held)
        slower = asyncio.create_task(house.asked("POST", where, ada.key))
        await looked.wait()
    status, body, _ = await house.asked("POST", where, ada.key, headers={"Prefer": "wait=20"})
    assert (status, body["status"], len(body["attempts"])) == (200, "failed", 2)
    goes_on.set()
    status, body, _ = await slower
    assert (status, body.get("code")) == (409, "not_ended")
    assert "tried again in the meantime" in body["detail"]
    assert not ada.receipts()
    status, body, _ = await house.asked("POST", where, ada.key, headers={"Prefer": "wait=20"})
    assert (status, body["status"], len(ada.receipts())) == (200, "sent", 1), "who has seen the second is heard"
