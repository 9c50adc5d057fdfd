"""Three brokers: leaders are killed, frozen and cut off under load, and two at once are gone; nothing acknowledged is lost.

Only `make faults` starts a cluster. What to expect was measured: a killed leader costs about the brokers' session time-out, a
frozen one about the clients' request time-out more, and so does one that is cut off from its peers while clients still reach
it. Below two brokers in sync nothing is acknowledged at all.

Some roles know one broker only. While that is cut off, one of them is killed and started again: it is told what was true
before, and adopts from a log that ends too early.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from gateways.local_servers import Servers
from tests.faults.installation import EVENTS, MAIL, Installation, Role, installed
from tests.faults.load import Load
from tests.faults.looking import violations
from tests.support.cluster import NODES, Cluster

FULL = os.environ.get("FAULTS") == "full"
ROUNDS = int(os.environ.get("FAULTS_ROUNDS", "5"))
FROZEN_SECONDS = 12
ISOLATED_SECONDS = 14
#: The broker at which two of the roles bootstrap.
ONLY_KNOWN = 1
#: Seconds from a fault to the next acknowledged mail: the worst that was measured, and room for a small machine.
RECOVERS_WITHIN = 45

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not FULL, reason="only `make faults` starts three brokers"),
]


class Faults:
    """What is done to the brokers while mail comes in."""

    def __init__(self, cluster: Cluster, house: Installation, load: Load) -> None:
        self.cluster = cluster
        self.house = house
        self.load = load
        self.roles: list[Role] = []
        self.topics = [house.prefix + EVENTS, house.prefix + MAIL]
        self.recovered: dict[str, list[float]] = {}

    async def leader(self, number: int) -> int:
        for topic in self.topics:
            await self.cluster.in_sync(topic, seconds=60)
        return await self.cluster.leader(self.topics[number % 2])

    async def recovers(self, fault: str) -> None:
        loop = asyncio.get_running_loop()
        began, before = loop.time(), self.load.kept
        async with asyncio.timeout(RECOVERS_WITHIN):
            while self.load.kept < before + 3:
                await asyncio.sleep(0.05)
        self.recovered.setdefault(fault, []).append(round(loop.time() - began, 1))

    async def kill_a_leader(self, number: int) -> None:
        leader = await self.leader(number)
        await self.cluster.kill(leader)
        await self.recovers("leader killed")
        await self.cluster.start(leader)

    async def freeze_a_leader(self, number: int) -> None:
        leader = await self.leader(number)
        self.cluster.freeze(leader)
        await asyncio.sleep(FROZEN_SECONDS)
        self.cluster.thaw(leader)
        await self.recovers("leader frozen, then thawed")

    async def start_roles(self) -> None:
        """The last two know one broker only."""
        self.roles = [await self.house.start("smtp"), await self.house.start("work")]
        self.house.settings = self.house.settings.model_copy(update={"kafka": self.cluster.address(ONLY_KNOWN)})
        self.roles += [await self.house.start("project"), await self.house.start("work")]

    async def isolate_a_leader(self, number: int) -> None:
        async with self._isolated(await self.leader(number), "leader isolated"):
            pass

    async def isolate_the_only_known(self, number: int) -> None:
        await self.leader(number)
        async with self._isolated(ONLY_KNOWN, "only known broker isolated"):
            await self.roles[-1].kill()
            self.roles[-1] = await self.house.start("work")

    @asynccontextmanager
    async def _isolated(self, node: int, fault: str) -> AsyncIterator[None]:
        self.cluster.isolate(node)
        healing = asyncio.create_task(self._heal(node))
        await self.recovers(fault)
        yield
        await healing
        await self.recovers(f"{fault}, then healed")

    async def _heal(self, node: int) -> None:
        await asyncio.sleep(ISOLATED_SECONDS)
        self.cluster.heal(node)

    async def leave_one(self, number: int) -> None:
        leader = await self.leader(number)
        others = [node for node in NODES if node != leader]
        for node in others:
            await self.cluster.kill(node)
        await asyncio.sleep(1)
        before = self.load.kept
        await asyncio.sleep(10)
        assert self.load.kept - before == 0, "one broker alone acknowledged what two were to hold"
        await asyncio.gather(*[self.cluster.start(node) for node in others])
        await self.recovers("two of three gone")


async def test_leaders_come_and_go_and_nothing_acknowledged_is_lost(servers, database, topic_prefix, tmp_path, capsys):
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    (tmp_path / "brokers").mkdir()
    (tmp_path / "house").mkdir()
    async with Cluster(tmp_path / "brokers") as cluster:
        both = Servers(cluster.kafka, servers.database_url)
        async with installed(both, database, topic_prefix, tmp_path / "house", partitions=2) as house:
            await house.with_mailboxes(6)
            load = Load(house, seed)
            faults = Faults(cluster, house, load)
            await faults.start_roles()
            loading = asyncio.create_task(load.run())
            for number in range(ROUNDS):
                await faults.kill_a_leader(number)
                await faults.freeze_a_leader(number)
                await faults.isolate_a_leader(number)
                await faults.isolate_the_only_known(number)
                await faults.leave_one(number)
            load.finishing.set()
            async with asyncio.timeout(90):
                await loading
            await house.quiet(seconds=120)
            assert [await role.stop() for role in faults.roles] == [0, 0, 0, 0]
            with capsys.disabled():
                sys.stdout.write(f"\nseed {seed}: {load.kept} mails kept, {dict(load.answers)}, {faults.recovered}\n")
            assert await violations(house) == []
