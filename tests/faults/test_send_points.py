"""Workers are killed at every named point of sending (K10 to K13), with mails under way by Gmail, Graph and SMTP: each mail
goes out once, or it is known what became of it.

Each point once or so in the usual run; `FAULTS=full` kills fifty times at each. The seed is printed and may be given as
`FAULTS_SEED`; so is where the kills landed. K14 is in test_webhook_kills.py.
"""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from random import Random

import pytest

from projections import sends as projection
from projections.replay import Rebuild
from schemas import events
from tests.faults.armed import SEND_POINTS
from tests.faults.installation import Role
from tests.faults.send_checker import check
from tests.faults.send_installation import Sending, SendLoad, sending

FULL = os.environ.get("FAULTS") == "full"
KILLS = 50 if FULL else 1
#: Those that are like others are for the long run.
LIKE_OTHERS = (
    "K11 Graph asked for a draft", "K12 Graph has a draft, not on record", "D send appended, not folded", "S timer told",
)  # fmt: skip
POINTS = [name for name in SEND_POINTS if FULL or name not in LIKE_OTHERS]
#: Where workers stand still until long after their attempt's deadline, and then go on.
STOPS = ["K10 granted, nothing asked", "K10 draft on record, not sent", "K12 outcome known, not reported"]
#: Workers that are killed one after the other, at the same time as those of the other chains.
CHAINS = 2
PARTITIONS = 2
#: Passes of a point before the kill, at the most.
MOST_PASSES = 2

pytestmark = [pytest.mark.faults, pytest.mark.timeout(24 * 3600 if FULL else 300)]


class Nemesis:
    """Chains of workers, each armed to kill itself; where one has died the next takes over."""

    def __init__(self, found: Sending, seed: int) -> None:
        self.house = found.house
        self.random = Random(seed)
        self.landed: Counter[str] = Counter()
        self.stood_still: list[Role] = []
        kills = [("kill", name) for name in POINTS * KILLS]
        self.random.shuffle(kills)
        # Taken from the end: who stands still does so first, and for all the rest of the time.
        self.left = [*kills, *[("stop", name) for name in STOPS]]

    async def kill_everywhere(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CHAINS):
                # Deciders of the chains are in groups of their own: every command is decided by two at once.
                group.create_task(self._chain("" if number == 0 else f".{number}"))

    async def _chain(self, owner: str) -> None:
        while self.left:
            how, name = self.left.pop()
            point = f"{name}:{self.random.randint(1, MOST_PASSES)}"
            worker = await self.house.start("work", **{how: point}, owner=owner)
            if how == "kill":
                try:
                    status = await worker.ended(60)
                except AssertionError as error:
                    raise AssertionError(f"{point}, after {self.landed.total()} kills: {error}") from None
                assert status == -signal.SIGKILL, f"{name}: {status}: {worker.log.read_text()[-2000:]}"
                self.landed.update(worker.landed)
            else:
                await self._stands_still(worker)
        await self.house.start("work", owner=owner)

    async def _stands_still(self, worker: Role) -> None:
        async with asyncio.timeout(60):
            while not worker.landed:
                await asyncio.sleep(0.02)
        self.stood_still.append(worker)

    def go_on(self) -> None:
        """Those that stood still believe that no time has passed."""
        for worker in self.stood_still:
            assert worker.status is None, worker.log.read_text()[-2000:]
            worker.signal(signal.SIGCONT)


async def stop_all(roles: list[Role]) -> None:
    for role in [one for one in roles if one.status is None]:
        assert await role.stop() == 0, role.log.read_text()[-3000:]


async def differences(found: Sending) -> list[str]:
    """What a rebuild of the tables of sends, from the first event on, finds otherwise than it is."""
    house = found.house
    url = house.settings.database_url.get_secret_value()
    outcome = await Rebuild(projection.PROJECTION, events.SEND, house.log, url).run(switch=False)
    return [str(each) for each in outcome.differences]


async def test_each_mail_goes_out_once_wherever_a_worker_is_killed(servers, database, topic_prefix, tmp_path, capsys):
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    async with sending(servers, database, topic_prefix, tmp_path, partitions=PARTITIONS) as found:
        projecting = await found.house.start("project")
        load, nemesis = SendLoad(found, seed), Nemesis(found, seed)
        loading = asyncio.create_task(load.run())
        began = time.monotonic()
        await nemesis.kill_everywhere()
        nemesis.go_on()
        killed = time.monotonic()
        load.finishing.set()
        await loading
        await found.all_ended()
        healed = time.monotonic()
        assert projecting.status is None
        await stop_all(found.house.roles)
        observed = await found.observed(uncertain=nemesis.landed.total() // 100)
        with capsys.disabled():
            sys.stdout.write(
                f"\nseed {seed}: {load.answers['taken']} sends, {nemesis.landed.total()} kills in {killed - began:.0f} s, "
                f"all ended {healed - killed:.1f} s later: {dict(Counter(observed.shown.values()))}; "
                f"{dict(sorted(nemesis.landed.items()))}\n"
            )
        assert list(map(str, check(observed))) == []
        assert {name for name in POINTS if not nemesis.landed[name]} == set(), (
            "a point that is never hit proves nothing"
        )
        assert await differences(found) == []
        wrong = "update sends set attempt = attempt + 1 where send = (select min(send) from sends)"
        await found.house.pool.execute(wrong)
        assert len(await differences(found)) == 1, "a row that is wrong is found"
