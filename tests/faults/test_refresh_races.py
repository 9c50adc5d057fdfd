"""Workers that stand still in the middle of a refresh, for longer than their lease, and then go on (D-07).

Such a worker asks the provider for nothing that another has asked for meanwhile, and overwrites nothing that is newer.
"""

import asyncio
import signal
import uuid
from contextlib import asynccontextmanager

import pytest

from tests.faults.connected import LIFE, Accounts, connected
from tests.faults.installation import Role
from tests.support.servers import create_database, drop_database

ACCOUNTS, TIMEOUT = 3, 1

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


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


async def frozen(accounts: Accounts, point: str) -> Role:
    """A worker that was ready and has stopped itself there."""
    pool = accounts.house.pool
    await pool.execute("update connections set refresh_due = now() + interval '1 hour'")
    role = await accounts.house.start("work", stop=f"{point}:1")
    await pool.execute("update connections set refresh_due = now()")
    async with asyncio.timeout(60):
        while not role.landed:
            await asyncio.sleep(0.05)
    return role


async def versions(accounts: Accounts) -> dict[str, int]:
    found = await accounts.house.pool.fetch("select connection, version from vault")
    return {row["connection"]: row["version"] for row in found}


async def stands_still(point: str, mode: str, accounts: Accounts) -> None:
    await accounts.house.start("project")
    stood_still = await frozen(accounts, point)
    await accounts.house.start("work")
    assert await accounts.healed(60) == set(), f"{mode}: others go on once its lease is over"
    before = await versions(accounts)
    stood_still.signal(signal.SIGCONT)
    async with asyncio.timeout(4 * LIFE):
        while not all(after > before[one] for one, after in (await versions(accounts)).items()):
            now = await versions(accounts)
            assert all(now[one] >= version for one, version in before.items())
            await asyncio.sleep(0.05)
    assert await accounts.healed(60) == set()
    total = (await accounts.server.counts())["total"]
    assert total["refusedRefreshes"] == 0, f"{mode}: a token was used that another had used up"
    assert await stood_still.stop() == 0, stood_still.log.read_text()[-3000:]


async def test_who_stood_still_past_the_lease_asks_nothing_and_overwrites_nothing(installing):
    """Two installations at the same time: most of it is waiting for a lease to end."""
    # One after the other: migrations keep what they work on in globals of the process.
    async with installing("strict") as strict, installing("microsoft") as microsoft, asyncio.TaskGroup() as group:
        group.create_task(stands_still("K15 leased", "strict", strict))
        group.create_task(stands_still("K15 rotated, not kept", "microsoft", microsoft))
