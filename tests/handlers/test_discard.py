"""What was kept of a mail that found no room is thrown away; what was received stays."""

import asyncio
import os
from pathlib import Path

from gateways.local_servers import Servers
from tests.support.http_house import bearer, http_house, path

LARGE = b"From: a@example.org\r\nSubject: Large\r\n\r\n" + b"".join(
    os.urandom(36).hex().encode() + b"\r\n" for _ in range(10_000)
)


async def test_a_full_inbox_does_not_fill_the_blob_store(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with http_house(servers, database, topic_prefix, tmp_path) as house:
        account, key = await house.account()
        await house.assign(account, await house.plan(live_messages=1))
        await asyncio.sleep(3.1)  # until the key's old plan is forgotten
        box = await house.mailbox(key)
        await house.deliver(box["address"], LARGE)
        (message,) = await house.listed(box, 1)
        received = house.house.blobs.names()
        assert received
        await house.deliver(box["address"], LARGE.replace(b"Large", b"Too many"), count=3)
        async with asyncio.timeout(30):
            rejected = "select count(*) from feed where type = 'message.rejected'"
            while await house.services.pool.fetchval(rejected) < 3 or house.house.blobs.names() != received:
                await asyncio.sleep(0.05)
        async with house.http.get(
            f"{house.url}{path(box)}/messages/{message['id']}/raw", headers=bearer(box)
        ) as answer:
            assert await answer.read() == LARGE
