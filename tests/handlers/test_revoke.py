"""Revoking: at the provider where it can be asked, here always, and nobody uses such tokens afterwards (D-10, J-09)."""

import asyncio
from typing import Any

import pytest

from domain.connection_events import ConnectionRevoked, TokenRefreshed
from domain.tokens import NotRefreshed, Refreshed, Revoked, Secrets
from gateways.stores.shared_grants import SharedGrants
from handlers.revoke import Revoking
from schemas.envelope import Record
from tests.support.refresh_house import SCALE, RefreshHouse


async def revocation(tokens: RefreshHouse, account: Any) -> ConnectionRevoked:
    (revoked,) = await tokens.happened(account, ConnectionRevoked)
    await tokens.row(account, lambda row: (row["state"], row["at_provider"]) == ("revoked", revoked.at_provider))
    assert await tokens.house.vault.get(account.connection) is None
    return revoked


async def requests(tokens: RefreshHouse, path: str) -> int:
    return int((await tokens.server.counts())["requests"].get(path, 0))


async def test_google_declares_void_what_is_destroyed_here(tokens: RefreshHouse):
    account = await tokens.connect()
    await tokens.revoke(account)
    revoked = await revocation(tokens, account)
    assert (revoked.at_provider, revoked.cause, revoked.by) == ("done", None, "caller")
    assert (await tokens.counts(account))["revocations"] == 1
    assert await requests(tokens, "revoke") == 1
    assert not (await tokens.server.token(account.secrets.refresh_token))["alive"]


async def test_a_provider_that_fails_is_asked_three_times_and_the_tokens_are_gone_anyway(tokens: RefreshHouse):
    await tokens.server.control(failNext={"path": "revoke", "status": 503, "times": 99})
    account = await tokens.connect()
    await tokens.revoke(account)
    revoked = await revocation(tokens, account)
    assert (revoked.at_provider, revoked.cause) == ("failed", "server_error")
    assert await requests(tokens, "revoke") == 3


async def test_one_failure_is_not_the_end(tokens: RefreshHouse):
    await tokens.server.control(failNext={"path": "revoke", "dropBefore": True})
    account = await tokens.connect()
    await tokens.revoke(account)
    assert (await revocation(tokens, account)).at_provider == "done"
    assert await requests(tokens, "revoke") == 2


async def test_microsoft_can_not_be_asked(tokens: RefreshHouse):
    await tokens.server.control(mode="microsoft")
    account = await tokens.connect("outlook")
    await tokens.revoke(account)
    assert (await revocation(tokens, account)).at_provider == "none"
    assert await requests(tokens, "revoke") == 0


async def test_a_consent_that_the_user_has_withdrawn_there_is_void(tokens: RefreshHouse):
    account = await tokens.connect()
    await tokens.server.revoke(account.login)
    await tokens.revoke(account)
    assert (await revocation(tokens, account)).at_provider == "done"


async def test_it_waits_for_whoever_refreshes_and_revokes_the_newest(tokens: RefreshHouse):
    """No call with a revoked token comes after the event, and no new token outlives it."""
    await tokens.server.control(tokenLatencyMs=800)
    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing()
    asking = asyncio.create_task(refreshing.access_token(account.connection))
    while not await requests(tokens, "token"):
        await asyncio.sleep(0.02)
    await tokens.revoke(account)
    got = await asking
    await revocation(tokens, account)
    assert not (await tokens.server.token(got.token))["alive"]
    kinds = [type(event) for event in await tokens.events(account)]
    assert kinds.count(ConnectionRevoked) == 1
    assert TokenRefreshed not in kinds[kinds.index(ConnectionRevoked) :]
    calls = await requests(tokens, "token")
    await asyncio.sleep(1)
    assert await requests(tokens, "token") == calls


async def test_a_refresher_that_stood_still_asks_nothing_after_the_revocation(tokens: RefreshHouse, monkeypatch):
    """It had leased, and stood still until the lease was over and the connection revoked."""
    account, goes_on = await tokens.connect(expired=True), asyncio.Event()
    vault, calls = tokens.house.vault, 0

    class Stands:
        def __getattr__(self, name: str) -> Any:
            return getattr(vault, name)

        async def lease(self, connections: Any, *, seconds: float, holder: str) -> Any:
            found = await vault.lease(connections, seconds=0.3, holder=holder)
            await goes_on.wait()
            return found

    class Counts:
        async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed:
            nonlocal calls
            calls += 1
            return NotRefreshed("invalid_grant", "invalid_grant")

    monkeypatch.setattr("handlers.one_refresh.SPARE_SECONDS", 0.2)
    refreshing, _ = tokens.refreshing(vault=Stands(), connectors={"gmail": Counts()})
    asking = asyncio.create_task(refreshing.access_token(account.connection))
    await asyncio.sleep(0.1)
    await tokens.revoke(account)
    await revocation(tokens, account)
    goes_on.set()
    with pytest.raises(Exception, match="revoked"):
        await asking
    assert calls == 0


async def test_a_worker_that_was_cut_short_does_not_keep_the_next_one_waiting(tokens: RefreshHouse):
    """It held the lease under the name of the event, which is the same for whoever comes next."""
    account = await tokens.connect()
    record = Record("connection.events", 0, 7, 0, account.user, b"", [])

    class Dies:
        async def revoke(self, secrets: Secrets) -> Revoked:
            raise RuntimeError("killed")

    house, event = tokens.house, type("Event", (), {"connection": account.connection, "user": account.user})()
    reports = tokens.refreshing()[0]._reports
    for connectors in ({"gmail": Dies()}, house.connectors.by_provider):
        revoking = Revoking(house.vault, connectors, SharedGrants(house.pool), reports, scale=SCALE)
        async with asyncio.timeout(5):
            if connectors is house.connectors.by_provider:
                await revoking.act(event, record)
            else:
                with pytest.raises(RuntimeError):
                    await revoking.act(event, record)
    assert await house.vault.get(account.connection) is None
    assert (await tokens.counts(account))["revocations"] == 1


async def test_tokens_that_nobody_can_open_are_destroyed_as_well(tokens: RefreshHouse):
    account = await tokens.connect()
    await tokens.house.pool.execute(
        "update vault set refresh = '\\x00'::bytea || refresh where connection = $1", account.connection
    )
    await tokens.revoke(account)
    revoked = await revocation(tokens, account)
    assert revoked.at_provider == "failed"


async def test_a_mailbox_that_another_user_has_connected_too_stays_connected_for_them(tokens: RefreshHouse):
    """Google would end both: it is asked when the last of them goes."""
    ours = await tokens.connect()
    theirs = await tokens.connect(login=ours.login)
    await tokens.revoke(ours)
    assert (await revocation(tokens, ours)).at_provider == "none"
    assert await requests(tokens, "revoke") == 0
    await tokens.revoke(theirs)
    assert (await revocation(tokens, theirs)).at_provider == "done"
    assert await requests(tokens, "revoke") == 1
