"""Workers are killed while they revoke: it ends in ConnectionRevoked, and no call with a revoked token is made (K15, D-10).

Nor is any token found in what the processes wrote.
"""

import asyncio
import signal

import pytest

from domain.connection_commands import RevokeConnection
from gateways.stores.work_positions import EffectPositions
from handlers.revoke import NAME
from schemas.topics import CONNECTION_EVENTS
from tests.faults.armed import TOKEN_POINTS
from tests.faults.connected import LIFE, SECRET, Accounts, connected
from tests.support.everywhere import found_in, tables_of, topics_of

POINTS = [name for name in TOKEN_POINTS if "revoked" in name or "destroyed" in name]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def installing(servers, database, topic_prefix, tmp_path):
    """Where an installation is to be."""
    return servers, database, topic_prefix, tmp_path


async def revoked(accounts: Accounts, connection: str) -> str:
    """What came of it at the provider, once it is told."""
    async with asyncio.timeout(60):
        while True:
            row = (await accounts.rows())[connection]
            if row["at_provider"] is not None:
                assert row["state"] == "revoked"
                return str(row["at_provider"])
            await asyncio.sleep(0.05)


async def position_kept(accounts: Accounts) -> None:
    """What has been done is not asked for again: the next kill is to hit the next revocation."""
    _, end = await accounts.house.log.bounds(CONNECTION_EVENTS.name, 0)
    positions = EffectPositions(accounts.house.pool)
    async with asyncio.timeout(30):
        while await positions.position(NAME, CONNECTION_EVENTS.name, 0) < end:
            await asyncio.sleep(0.05)


async def no_secret_is_written(accounts: Accounts) -> None:
    secrets = {SECRET} | {
        token for one in accounts.connections.values() for token in (one.refresh_token, one.access_token)
    }
    places = await topics_of(accounts.house.settings.kafka or "", accounts.house.prefix)
    places |= await tables_of(accounts.house.pool)
    places |= {str(role.log): role.log.read_bytes() for role in accounts.house.roles}
    assert places[accounts.house.prefix + CONNECTION_EVENTS.name]
    assert found_in(places, secrets) == []


async def test_a_revocation_that_is_cut_short_is_ended_by_the_next(installing):
    """The tokens are Google's, and due every few seconds: whoever refreshes would soon use one that is void."""
    async with connected(*installing, mode="google", accounts=len(POINTS) + 1, provider_timeout=1) as accounts:
        await accounts.house.start("project")
        gone, ended = list(accounts.connections)[: len(POINTS)], {}
        for point, connection in zip(POINTS, gone, strict=True):
            dies = await accounts.house.start("work", kill=f"{point}:1")
            user = (await accounts.rows())[connection]["user_id"]
            await accounts.ask(RevokeConnection(connection, user, "caller"), user)
            assert await dies.ended(60) == -signal.SIGKILL, dies.log.read_text()[-2000:]
            survivor = await accounts.house.start("work")
            ended[point] = await revoked(accounts, connection)
            assert await accounts.vault.get(connection) is None
            await position_kept(accounts)
            await survivor.stop()
        assert ended == {"K15 revoked at the provider": "done", "K15 destroyed, not reported": "failed"}
        await accounts.house.start("work")
        await asyncio.sleep(1.5 * LIFE)
        counts = await accounts.server.counts()
        assert counts["total"]["refusedRefreshes"] == 0, "a token was used after it had been revoked"
        for connection in gone:
            seeded = accounts.connections[connection]
            assert counts["users"][seeded.email]["revocations"] == 1
            assert not (await accounts.server.token(seeded.refresh_token))["alive"]
        await no_secret_is_written(accounts)
