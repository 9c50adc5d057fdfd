"""Workers are killed while they refresh and revoke: no account is lost in silence (K15, D-07, D-08).

An account works, or is shown to need its user, within a minute of the kill. With providers that do not take a token once only
(Google keeps the refresh token, Microsoft keeps the old one valid) no account is lost at all; with one that does, only those
whose new token died with the worker.
"""

import asyncio
import os
import signal
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest

from tests.faults.armed import TOKEN_POINTS
from tests.faults.connected import Accounts, connected
from tests.support.servers import create_database, drop_database

FULL = os.environ.get("FAULTS") == "full"
KILLS = 50 if FULL else 1
ACCOUNTS = 40 if FULL else 12
MODES = ("google", "microsoft", "strict")
#: Seconds from a kill until every account works or says that it does not.
HEALED_SECONDS = 60
REFRESHING = [name for name in TOKEN_POINTS if "revoked" not in name and "destroyed" not in name]

#: Seconds that a call to the provider may take: a lease lasts ten more, and whoever was killed had one.
TIMEOUT = 2

pytestmark = [pytest.mark.faults, pytest.mark.timeout(24 * 3600 if FULL else 300)]


@pytest.fixture
def installing(servers, topic_prefix, tmp_path):
    """Connects accounts at a provider of this mode, in an installation of their own."""

    @asynccontextmanager
    async def connecting(mode):
        name, folder = f"test_{uuid.uuid4().hex}", tmp_path / mode
        folder.mkdir()
        place = (servers, create_database(servers, name), f"{topic_prefix}{mode}.", folder)
        try:
            async with connected(*place, mode=mode, accounts=ACCOUNTS, provider_timeout=TIMEOUT) as accounts:
                yield accounts
        finally:
            drop_database(servers, name)

    return connecting


@dataclass
class Killed:
    landed: Counter[str]
    lost: set[str]


async def kill_at_each(accounts: Accounts, random: Random) -> Killed:
    """Kills a worker at each point, and looks after each kill that everything heals in time."""
    killed, points = Killed(Counter(), set()), REFRESHING * KILLS
    random.shuffle(points)
    for name in points:
        process = await accounts.house.start("work", kill=f"{name}:{random.randint(1, 5)}")
        assert await process.ended(60) == -signal.SIGKILL, process.log.read_text()[-2000:]
        killed.landed.update(process.landed)
        survivor = await accounts.house.start("work")
        killed.lost |= await accounts.healed(HEALED_SECONDS)
        await accounts.replenish(ACCOUNTS)
        await survivor.kill()
    return killed


async def survives(mode: str, accounts: Accounts, seed: int) -> Killed:
    await accounts.house.start("project")
    killed = await kill_at_each(accounts, Random(seed))
    assert killed.landed.keys() == set(REFRESHING), f"{mode}: a point that is never hit proves nothing"
    if mode != "strict":
        assert killed.lost == set(), mode
    assert len(killed.lost) <= killed.landed["K15 rotated, not kept"] * accounts.at_once
    return killed


async def test_no_account_is_lost_in_silence_wherever_a_worker_is_killed(installing, capsys):
    """One installation for each way of a provider, all killed at the same time: most of it is waiting for leases to end."""
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    with capsys.disabled():
        print(f"\nseed {seed}")
    async with AsyncExitStack() as stack:
        # One after the other: migrations keep what they work on in globals of the process.
        ready = {mode: await stack.enter_async_context(installing(mode)) for mode in MODES}
        async with asyncio.TaskGroup() as group:
            tasks = {mode: group.create_task(survives(mode, accounts, seed)) for mode, accounts in ready.items()}
    with capsys.disabled():
        for mode, task in tasks.items():
            killed = task.result()
            print(f"{mode}: {killed.landed.total()} kills, {len(killed.lost)} need their user")
