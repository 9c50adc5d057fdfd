"""Workers are killed while they deliver webhooks (K14): each is delivered, under one id, and every attempt is on record.

Once at each of two points in the usual run; `FAULTS=full` kills fifty times at every point.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from domain.account import CreateAccount
from domain.callbacks import Callback, RequestCallback
from domain.webhooks import AddWebhook
from gateways.local_servers import Servers
from gateways.settings import Settings
from gateways.stores.sealing import place, seal
from gateways.stores.webhook_endpoints import account_key
from gateways.webhooks.signing import Signer
from main import House, assembled, prepare
from schemas import commands, topics
from schemas.ids import new_id
from tests.faults.armed import WEBHOOK_POINTS
from tests.support.own_child import OwnChild
from tests.support.webhook_house import Receiver, receiving, verified

PROCESS = Path(__file__).parents[1] / "support" / "webhook_process.py"
FULL = os.environ.get("FAULTS") == "full"
#: The first two of the points are those at which something is done that nobody knows of yet.
POINTS = [name for name in WEBHOOK_POINTS if "letter" not in name][: None if FULL else 2]
KILLS = 50 if FULL else 1
#: Deliveries for each worker that dies; and how many wait at most, as workers that live for seconds can't get on with more.
EACH = 10
MOST_WAITING = 10 * EACH
#: A first wait of half a second: more than what a busy machine takes to put a delivery into its tier.
SCALE = 0.1

pytestmark = [pytest.mark.faults, pytest.mark.timeout(24 * 3600 if FULL else 300)]


@dataclass
class Webhooks:
    """An installation without workers, whose endpoint is `receiver`."""

    house: House
    said: dict[str, Any]
    account: str
    endpoint: str
    deliveries: list[str] = field(default_factory=list)

    async def tell(self, count: int) -> None:
        """So many deliveries more are to be made."""
        made = [new_id("whd") for _ in range(count)]
        self.deliveries += made
        await asyncio.gather(*[self._tell(delivery) for delivery in made])

    async def _tell(self, delivery: str) -> None:
        body = json.dumps({"type": "webhook.test", "timestamp": "2026-03-13T15:30:00.000Z", "data": {}})
        command = RequestCallback(Callback(delivery, self.account, self.endpoint, "webhook.test", body))
        await self.house.command_log.command(
            topics.WEBHOOK_COMMANDS.name, self.endpoint, command, vocabulary=commands.WEBHOOK, subject=delivery
        )

    async def worker(self, point: str | None, nth: int) -> OwnChild:
        told = {"settings": self.said, "point": point, "nth": nth}
        return await OwnChild.start("webhooks", [sys.executable, PROCESS], told=told, seconds=60)

    async def opens(self) -> None:
        """Returns once the tables show the endpoint: nobody has anything told to one that they don't."""
        while not await self.house.pool.fetchval("select true from webhooks where endpoint = $1", self.endpoint):
            await asyncio.sleep(0.05)

    async def waiting(self) -> int:
        """Deliveries that have not ended, as far as the tables are."""
        found: int = await self.house.pool.fetchval("select count(*) from deliveries where status = 'pending'")
        return found

    async def rows(self) -> dict[str, Any]:
        rows = await self.house.pool.fetch("select delivery, status, attempts from deliveries")
        return {row["delivery"]: (row["status"], json.loads(row["attempts"])) for row in rows}


@asynccontextmanager
async def installed(
    servers: Servers, database: str, prefix: str, folder: Path, receiver: Receiver
) -> AsyncIterator[Webhooks]:
    said = {
        "data": str(folder), "kafka": servers.kafka, "database_url": database, "topic_prefix": prefix, "partitions": 1,
        "allow_private_hosts": True, "retry_scale": SCALE, "webhook_timeout": 1.0,
    }  # fmt: skip
    settings = Settings(**(said | {"data": folder, "database_url": SecretStr(database)}))
    await prepare(settings)
    async with assembled(settings, ["project"]) as house:
        account, endpoint = new_id("acc"), new_id("whk")
        data_key = await account_key(house.keyring, account)
        url = seal(data_key, receiver.url.encode(), place("webhook", endpoint, "url"))
        for command in (CreateAccount(account, "pro"), AddWebhook(account, endpoint, url)):
            await house.command_log.command(
                topics.ACCOUNT_COMMANDS.name, account, command, vocabulary=commands.ACCOUNT, subject=account
            )
        yield Webhooks(house, said, account, endpoint)


@dataclass
class SecondTime:
    """Each delivery is taken when it comes for the second time: all of them go through a tier.

    Each is verified as it comes, as a signature is too old after five minutes; `types` are those of which it is right.
    """

    secret: str = ""
    had: Counter[str] = field(default_factory=Counter)
    types: list[str] = field(default_factory=list)

    async def __call__(self, receiver: Receiver, request: web.Request) -> web.StreamResponse:
        call = receiver.calls[-1]
        self.had[call.id] += 1
        self.types.append(verified(call, self.secret)["type"])
        return web.Response(status=204 if self.had[call.id] > 1 else 500)


async def test_what_a_killed_worker_was_about_is_delivered_by_the_next(servers, database, topic_prefix, tmp_path):
    answers = SecondTime()
    async with (
        receiving(answers) as receiver,
        installed(servers, database, topic_prefix, tmp_path, receiver) as webhooks,
    ):
        answers.secret = Signer.of(webhooks.house.keyset, webhooks.endpoint, 1).secret
        kills = [(point, 2 + number) for number, point in enumerate(POINTS)] * KILLS
        for number, (point, nth) in enumerate(kills):
            dying = await webhooks.worker(point, nth)
            try:
                async with asyncio.timeout(60):
                    await webhooks.opens()
                    if await webhooks.waiting() < MOST_WAITING:
                        await webhooks.tell(EACH)
                    assert await dying.process.wait() == -signal.SIGKILL, dying.said
            except TimeoutError:
                raise AssertionError(f"{point}, after {number} kills: {dying.said[-4000:]}") from None
            finally:
                await dying.stop()
        survivor = await webhooks.worker(None, 0)
        rows: dict[str, Any] = {}
        try:
            await webhooks.tell(EACH)
            async with asyncio.timeout(60):
                while [status for status, _ in rows.values()] != ["delivered"] * len(webhooks.deliveries):
                    await asyncio.sleep(0.1)
                    rows = await webhooks.rows()
        finally:
            await survivor.stop()
    assert answers.types == ["webhook.test"] * len(receiver.calls)
    assert set(rows) == set(webhooks.deliveries) == {call.id for call in receiver.calls}
    for delivery, (_, attempts) in rows.items():
        calls = [call for call in receiver.calls if call.id == delivery]
        assert len(calls) >= 2, "at least once, until it was taken"
        assert len(attempts) <= len(calls), "nothing is on record that was not made"
        assert [attempt["status"] for attempt in attempts][-1] == 204
        assert [attempt["status"] for attempt in attempts][:-1] in ([500], [])
        assert len({call.body for call in calls}) == 1
    repeated = sum(len([call for call in receiver.calls if call.id == one]) > 2 for one in rows)
    assert repeated <= len(kills) * 2 * EACH, "what was reported is not told again and again"
