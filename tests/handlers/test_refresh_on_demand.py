"""An access token on demand: after a provider refused one, while providers are down, and when whoever asked has gone."""

import asyncio
from typing import Any

import pytest

from domain.connection_events import TokenRefreshed, TokenRefreshFailed
from domain.tokens import MailServer, OwnServers, Refreshed, Secrets
from handlers.refresh import TokenUnavailable
from tests.support.refresh_house import TIMEOUT, RefreshHouse


async def test_a_token_that_is_good_costs_no_call(tokens: RefreshHouse):
    account = await tokens.connect()
    refreshing, _ = tokens.refreshing()
    got = await refreshing.access_token(account.connection)
    assert (got.token, got.version) == (account.secrets.access_token, 1)
    assert account.secrets.access_token not in repr(got)
    assert (await tokens.counts(account))["refreshes"] == 0


async def test_a_refused_token_is_replaced_once_by_a_good_one(tokens: RefreshHouse):
    account = await tokens.connect()
    refreshing, _ = tokens.refreshing()
    for _ in range(3):
        got = await refreshing.access_token(account.connection, refused=1)
        assert got.version == 2
        assert (await tokens.server.token(got.token))["alive"]
    (refreshed,) = await tokens.happened(account, TokenRefreshed)
    assert refreshed.asked_by == "call"
    assert (await tokens.counts(account))["refreshes"] == 1


async def test_of_a_revoked_connection_there_is_none_and_no_provider_is_asked(tokens: RefreshHouse):
    account = await tokens.connect()
    await tokens.revoke(account)
    await tokens.row(account, lambda row: row["at_provider"] is not None)
    refreshing, _ = tokens.refreshing()
    before = await tokens.refused()
    with pytest.raises(TokenUnavailable) as none:
        await refreshing.access_token(account.connection, refused=1)
    assert (none.value.reauth, none.value.retry_after) == (True, None)
    assert await tokens.refused() == before


async def test_of_a_withdrawn_consent_there_is_none_and_its_provider_is_asked_once(tokens: RefreshHouse):
    account = await tokens.connect(expired=True)
    await tokens.server.revoke(account.login)
    refreshing, _ = tokens.refreshing()
    for _ in range(3):
        with pytest.raises(TokenUnavailable) as none:
            await refreshing.access_token(account.connection)
        assert none.value.reauth
    assert await tokens.refused() == 1
    await tokens.row(account, lambda row: row["state"] == "reauth_required")


@pytest.mark.parametrize(
    "failure", [{"status": 503, "headers": {"Retry-After": "7"}}, {"dropBefore": True}, {"delayMs": 9000}]
)
async def test_while_the_provider_is_down_all_who_ask_hear_so_in_time_and_it_is_asked_once(
    tokens: RefreshHouse, failure
):
    await tokens.server.control(failNext=failure | {"times": 99})
    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing()
    async with asyncio.timeout(TIMEOUT + 3):
        answers: list[Any] = await asyncio.gather(
            *[refreshing.access_token(account.connection) for _ in range(50)], return_exceptions=True
        )
        answers += await asyncio.gather(refreshing.access_token(account.connection), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, TokenUnavailable), answer
        assert not answer.reauth
        assert 0 < answer.retry_after <= 7
    failed = await tokens.happened(account, TokenRefreshFailed)
    assert [event.asked_by for event in failed].count("call") == 1, "beside what the timer asks from then on"


async def test_who_waits_for_another_process_does_not_wait_for_ever(tokens: RefreshHouse, monkeypatch):
    monkeypatch.setattr("handlers.refresh.SPARE_SECONDS", 0.2)
    account = await tokens.connect(expired=True)
    assert await tokens.house.vault.lease([account.connection], seconds=60, holder="somebody")
    refreshing, _ = tokens.refreshing(timeout=0.2)
    with pytest.raises(TokenUnavailable) as none:
        await refreshing.access_token(account.connection)
    assert none.value.retry_after
    assert (await tokens.counts(account))["refreshes"] == 0


async def test_a_provider_whose_tokens_have_expired_on_arrival_is_asked_once_a_question(tokens: RefreshHouse):
    """Of two processes that want one at the same time, the other takes what the first was given."""
    stale = {"body": {"access_token": "stale", "expires_in": 0}, "delayMs": 300}
    await tokens.server.control(failNext=stale | {"times": 99})
    account = await tokens.connect(expired=True)
    processes = [tokens.refreshing()[0] for _ in range(2)]
    got = await asyncio.gather(*[process.access_token(account.connection) for process in processes])
    assert {(one.token, one.version) for one in got} == {("stale", 2)}
    refreshed = await tokens.happened(account, TokenRefreshed)
    assert [event.asked_by for event in refreshed].count("call") == 1, "beside what the timer asks from then on"


async def test_a_password_is_no_token_and_nobody_logs_in_for_one(tokens: RefreshHouse):
    account = await tokens.connect(tell=False)
    server = MailServer("mail.example", 993, "tls", "ada", "a password")
    secrets = Secrets(servers=OwnServers(server, server))
    await tokens.house.vault.put(account.connection, account.user, "smtp", secrets, "f")
    refreshing, _ = tokens.refreshing(connectors={})
    async with asyncio.timeout(2):
        with pytest.raises(TokenUnavailable, match="password"):
            await refreshing.access_token(account.connection)


async def test_a_caller_who_goes_does_not_take_the_new_token_along(tokens: RefreshHouse):
    """It takes the provider's token once only: cut between its answer and our switch, the account would be lost."""
    await tokens.server.control(mode="strict", failNext={"delayAfterMs": 700})
    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing()
    caller = asyncio.create_task(refreshing.access_token(account.connection))
    while (await tokens.counts(account))["refreshes"] == 0:
        await asyncio.sleep(0.02)
    caller.cancel()
    row = await tokens.row(account, lambda row: row["token_version"] == 2)
    assert row["state"] == "active"
    held = await tokens.house.vault.get(account.connection)
    assert (await tokens.server.token(held.secrets.refresh_token))["alive"]


async def test_of_many_who_ask_at_once_one_that_goes_takes_nothing_from_the_others(tokens: RefreshHouse):
    await tokens.server.control(mode="strict", tokenLatencyMs=300)
    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing()
    goes, stays = [asyncio.create_task(refreshing.access_token(account.connection)) for _ in range(2)]
    await asyncio.sleep(0.1)
    goes.cancel()
    assert (await stays).version == 2
    assert goes.cancelled()


async def test_who_is_out_of_time_leaves_the_refresh_to_end(tokens: RefreshHouse, monkeypatch):
    monkeypatch.setattr("handlers.refresh.SPARE_SECONDS", 0.2 - TIMEOUT)
    await tokens.server.control(mode="strict", failNext={"delayAfterMs": 900})
    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing()
    with pytest.raises(TokenUnavailable, match="in time"):
        await refreshing.access_token(account.connection)
    await tokens.row(account, lambda row: row["token_version"] == 2)
    held = await tokens.house.vault.get(account.connection)
    assert (await tokens.server.token(held.secrets.refresh_token))["alive"]


async def test_the_new_token_is_had_though_the_log_is_down(tokens: RefreshHouse):
    class Down:
        async def refresh(self, report: object) -> None:
            raise OSError("no broker can be reached")

    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing(reports=Down())
    got = await refreshing.access_token(account.connection)
    assert got.version == 2


async def test_new_tokens_outlast_a_vault_that_can_not_be_reached_and_a_lease_that_lapsed(tokens: RefreshHouse):
    await tokens.server.control(mode="strict")
    account = await tokens.connect(expired=True)
    vault, tries = tokens.house.vault, 0

    class Away:
        """Postgres is gone between the provider's answer and the switch, for longer than the lease."""

        def __getattr__(self, name: str) -> Any:
            return getattr(vault, name)

        async def switch(self, held: Any, **more: Any) -> int | None:
            nonlocal tries
            tries += 1
            if tries < 3:
                await tokens.house.pool.execute("update vault set leased_until = now()")
                raise ConnectionError("no server")
            return await vault.switch(held, **more)

    refreshing, _ = tokens.refreshing(vault=Away())
    got = await refreshing.access_token(account.connection)
    assert got.version == 2
    assert (await tokens.server.token(got.token))["alive"]
    assert (await tokens.counts(account))["refreshes"] == 1


async def test_tokens_that_others_replaced_meanwhile_are_not_overwritten(tokens: RefreshHouse):
    account = await tokens.connect(expired=True)
    vault, newer = tokens.house.vault, Secrets("newer", "newer refresh")

    class Overtaken:
        async def refresh(self, secrets: Secrets) -> Refreshed:
            await tokens.house.pool.execute("update vault set leased_until = now()")
            (held,) = await vault.lease([account.connection], seconds=5, holder="other")
            assert await vault.switch(held, holder="other", secrets=newer, fingerprint="f") == 2
            return Refreshed(Secrets("older", "older refresh"), rotated=True)

    refreshing, _ = tokens.refreshing(connectors={"gmail": Overtaken()})
    assert (await refreshing.access_token(account.connection)).token == "newer"
    assert (await vault.get(account.connection)).secrets == newer
