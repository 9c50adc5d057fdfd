"""Three brokers: leaders are killed, frozen and cut off under load, and two at once are gone; nothing acknowledged is lost.

Only `make faults` starts a cluster. What to expect was measured: a killed leader costs about the brokers' session time-out, a
frozen one about the clients' request time-out more, and so does one that is cut off from its peers while clients still reach
it. Below two brokers in sync nothing is acknowledged at all.

Some roles know one broker only. While that is cut off it tells every new client of theirs what was true before, so that they
adopt from a log that ends too early.
"""

import asyncio
import os
import sys
from random import Random

import pytest

from gateways.local_servers import Servers
from tests.faults.installation import EVENTS, MAIL, installed
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

    def __init__(self, cluster: Cluster, load: Load, prefix: str) -> None:
        self.cluster = cluster
        self.load = load
        self.topics = [prefix + EVENTS, prefix + MAIL]
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

    async def isolate_a_leader(self, number: int) -> None:
        await self._isolate(await self.leader(number), "leader isolated")

    async def isolate_the_only_known(self, number: int) -> None:
        await self.leader(number)
        await self._isolate(ONLY_KNOWN, "only known broker isolated")

    async def _isolate(self, node: int, fault: str) -> None:
        loop = asyncio.get_running_loop()
        heals_at = loop.time() + ISOLATED_SECONDS
        self.cluster.isolate(node)
        await self.recovers(fault)
        await asyncio.sleep(heals_at - loop.time())
        self.cluster.heal(node)
        await self.recovers(f"{fault}, then healed")

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
            roles = [await house.start("smtp"), await house.start("work")]
            house.settings = house.settings.model_copy(update={"kafka": cluster.address(ONLY_KNOWN)})
            roles += [await house.start("work"), await house.start("project")]
            load = Load(house, seed)
            faults, loading = Faults(cluster, load, topic_prefix), asyncio.create_task(load.run())
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
            assert [await role.stop() for role in roles] == [0, 0, 0, 0]
            with capsys.disabled():
                sys.stdout.write(f"\nseed {seed}: {load.kept} mails kept, {dict(load.answers)}, {faults.recovered}\n")
            assert await violations(house) == []
