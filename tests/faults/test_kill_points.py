"""Roles are killed at every named point while mail comes in: nothing that was acknowledged is missing or there twice.

Thirty kills or so in the usual run; `FAULTS=full` kills fifty times at each point. The seed is printed and may be given as
`FAULTS_SEED`; so is where the kills landed.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from random import Random

import pytest

from tests.faults.armed import POINTS
from tests.faults.installation import Installation, Role, installed
from tests.faults.load import Load
from tests.faults.looking import violations

FULL = os.environ.get("FAULTS") == "full"
#: Kills at each point; doors are up again soonest.
KILLS = {"smtp": 50, "work": 50, "project": 50} if FULL else {"smtp": 2, "work": 1, "project": 1}
#: Passes of a point before the kill, at the most: rare ones are hit at their first or second pass.
MOST_PASSES = {"K9 group offset committed": 1, "K9 effect position kept": 1, "P blobs gone, key there": 2}

pytestmark = [pytest.mark.faults, pytest.mark.timeout(24 * 3600 if FULL else 300)]


class Nemesis:
    """Keeps one process of each role alive, and each of them armed to kill itself."""

    def __init__(self, house: Installation, seed: int) -> None:
        self.house = house
        self.random = Random(seed)
        self.landed: Counter[str] = Counter()

    async def kill_everywhere(self) -> None:
        async with asyncio.TaskGroup() as group:
            for role in ("smtp", "work", "project"):
                group.create_task(self._kill_role(role))

    async def _kill_role(self, role: str) -> None:
        points = [name for name, point in POINTS.items() if point.role == role] * KILLS[role]
        self.random.shuffle(points)
        for number, name in enumerate(points):
            nth = self.random.randint(1, MOST_PASSES.get(name, 5))
            process = await self.house.start(role, kill=f"{name}:{nth}")
            status = await process.ended(60)
            assert status == -signal.SIGKILL, f"{role} ended by itself with {status}: {process.log.read_text()[-2000:]}"
            self.landed.update(process.landed)
            if number % 3 == 2:
                await self._kill_at_random(role)
        await self.house.start(role)

    async def _kill_at_random(self, role: str) -> None:
        process = await self.house.start(role)
        await asyncio.sleep(self.random.uniform(0.0, 1.5))
        assert process.status is None, process.log.read_text()[-2000:]
        await process.kill()
        self.landed[f"{role} at random"] += 1


async def purge_soon(house: Installation) -> None:
    """As if seven days had passed since every mailbox ended."""
    while True:
        await house.pool.execute("update timers set due = now() where kind = 'purge' and due > now()")
        await asyncio.sleep(0.3)


async def stop_all(house: Installation) -> None:
    alive: list[Role] = [role for role in house.roles if role.status is None]
    await asyncio.gather(*[role.stop() for role in alive])


async def test_nothing_acknowledged_is_lost_or_doubled_wherever_a_role_is_killed(
    servers, database, topic_prefix, tmp_path, capsys
):
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    async with installed(servers, database, topic_prefix, tmp_path) as house:
        await house.with_mailboxes(6)
        load, nemesis = Load(house, seed), Nemesis(house, seed)
        loading, purging = asyncio.create_task(load.run()), asyncio.create_task(purge_soon(house))
        await nemesis.kill_everywhere()
        purging.cancel()
        load.finishing.set()
        async with asyncio.timeout(60):
            await loading
        await house.quiet()
        await stop_all(house)
        with capsys.disabled():
            sys.stdout.write(
                f"\nseed {seed}: {load.kept} mails kept, {load.refused} tries refused, "
                f"{nemesis.landed.total()} kills: {dict(sorted(nemesis.landed.items()))}\n"
            )
        assert {name for name in POINTS if not nemesis.landed[name]} == set(), (
            "a point that is never hit proves nothing"
        )
        assert await violations(house) == []
