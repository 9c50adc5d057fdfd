"""What a provider says when it is asked for a new token, and what becomes of the connection (D-09)."""

import asyncio
from datetime import timedelta

import pytest

from domain.connection_events import ReauthorisationRequired, TokenRefreshed, TokenRefreshFailed
from domain.tokens import NotRefreshed, Secrets
from schemas.ids import new_id
from tests.support.refresh_house import RefreshHouse, counted

PASSING = {
    "rate_limited": {"status": 429, "headers": {"retry-after": "2"}},
    "server_error": {"status": 500},
    "timed_out": {"delayMs": 3000},
    "unreachable": {"dropBefore": True},
    "answer_unreadable": {"html": True},
}


@pytest.mark.parametrize("code", PASSING)
async def test_what_passes_is_told_and_tried_again(tokens: RefreshHouse, code):
    await tokens.server.control(failNext=PASSING[code])
    account = await tokens.connect(due=True)
    (failed,) = await tokens.happened(account, TokenRefreshFailed)
    assert (failed.failure, failed.code, failed.asked_by) == ("transient", code, "timer")
    row = await tokens.row(account, lambda row: row["last_error"] is not None)
    assert (row["state"], row["last_error"], row["refresh_due"]) == ("active", code, failed.next_at)
    if code == "rate_limited":
        assert failed.next_at - row["last_error_at"] >= timedelta(seconds=2), "what the provider asks for is not scaled"
    row = await tokens.row(account, lambda row: row["token_version"] == 2)
    assert (row["state"], row["last_error"], row["last_error_at"]) == ("active", None, None)


async def test_a_redirect_is_not_followed_and_passes(tokens: RefreshHouse):
    await tokens.server.control(failNext={"redirectTo": tokens.server.token_url})
    account = await tokens.connect(due=True)
    (failed,) = await tokens.happened(account, TokenRefreshFailed)
    assert (failed.failure, failed.code) == ("transient", "answer_unreadable")
    await tokens.row(account, lambda row: row["token_version"] == 2)


async def test_a_connector_that_says_nothing_in_time_is_one_that_timed_out(tokens: RefreshHouse):
    class Hangs:
        async def refresh(self, secrets: Secrets) -> NotRefreshed:
            await asyncio.sleep(60)
            raise AssertionError

    account = await tokens.connect(expired=True)
    refreshing, _ = tokens.refreshing(connectors={"gmail": Hangs()}, timeout=0.3)
    with pytest.raises(Exception, match="no new token"):
        await refreshing.access_token(account.connection)
    (failed,) = await tokens.happened(account, TokenRefreshFailed)
    assert (failed.code, failed.asked_by) == ("timed_out", "call")


@pytest.mark.parametrize("cause", ["unknown client", "expired secret"])
async def test_a_broken_client_is_an_alarm_and_no_account_is_given_up(tokens: RefreshHouse, cause):
    logins = [f"{new_id('ada').lower()}@mail.test" for _ in range(3)]
    if cause == "expired secret":
        await tokens.server.control(mode="microsoft", clientSecretExpired=True)
    else:
        refusal = {"status": 401, "error": "invalid_client"}
        await tokens.server.control(failNext=[refusal | {"login": login} for login in logins])
    before = _broken(tokens)
    provider = "outlook" if cause == "expired secret" else "gmail"
    accounts = [await tokens.connect(provider, login=login, due=True) for login in logins]
    for account in accounts:
        failed, *_ = await tokens.happened(account, TokenRefreshFailed)
        assert failed.failure == "client_broken"
        assert failed.code == ("client_secret_expired" if cause == "expired secret" else "invalid_client")
    assert _broken(tokens) >= before + 3
    await tokens.server.control(clientSecretExpired=False)
    for account in accounts:
        row = await tokens.row(account, lambda row: row["token_version"] == 2)
        assert row["state"] == "active"
        assert await tokens.happened(account, ReauthorisationRequired, 0) == []


def _broken(tokens: RefreshHouse) -> float:
    lines = counted(tokens.house.metrics, "postledger_token_refreshes_total")
    return sum(float(line.split()[-1]) for line in lines if 'outcome="client_broken"' in line)


async def test_a_withdrawn_consent_needs_the_user_once(tokens: RefreshHouse):
    account = await tokens.connect(due=True)
    await tokens.server.revoke(account.login)
    await tokens.row(account, lambda row: row["state"] == "reauth_required", seconds=10)
    await asyncio.sleep(1.5)
    required = await tokens.happened(account, ReauthorisationRequired)
    assert [(event.code, event.version) for event in required] == [("invalid_grant", 1)]
    assert await tokens.refused() == 1, "nobody asks again for what is over"


async def test_a_refusal_while_another_had_refreshed_gives_nothing_up(tokens: RefreshHouse):
    """The other refreshed between our call and our look: its tokens stand, and are what our caller gets."""
    account = await tokens.connect(expired=True)
    vault, now = tokens.house.vault, Secrets("access of the other", "refresh of the other")

    class Overtaken:
        async def refresh(self, secrets: Secrets) -> NotRefreshed:
            await tokens.house.pool.execute("update vault set leased_until = now()")
            (held,) = await vault.lease([account.connection], seconds=5, holder="other")
            assert await vault.switch(held, holder="other", secrets=now, fingerprint="f") == 2
            return NotRefreshed("invalid_grant", "invalid_grant")

    refreshing, _ = tokens.refreshing(connectors={"gmail": Overtaken()})
    got = await refreshing.access_token(account.connection)
    assert (got.token, got.version) == ("access of the other", 2)
    assert await tokens.happened(account, ReauthorisationRequired, 0) == []


@pytest.mark.parametrize("mode", ["microsoft", "strict"])
async def test_an_answer_that_nobody_heard_is_survived_where_the_old_token_stays(tokens: RefreshHouse, mode):
    """The refresh token was rotated, and the connection cut before the answer."""
    await tokens.server.control(mode=mode, failNext={"dropAfter": True})
    account = await tokens.connect(due=True)
    if mode == "microsoft":
        row = await tokens.row(account, lambda row: row["token_version"] == 2)
        assert row["state"] == "active"
    else:
        await tokens.row(account, lambda row: row["state"] == "reauth_required")


@pytest.mark.parametrize("mode", ["microsoft", "strict"])
async def test_the_token_before_is_tried_where_the_newest_is_refused(tokens: RefreshHouse, mode, monkeypatch):
    """A provider that slowly refuses leaves time for the other call: the lease is made longer for it."""
    monkeypatch.setattr("handlers.one_refresh.SPARE_SECONDS", 1.0)
    await tokens.server.control(mode=mode, tokenLatencyMs=700)
    account = await tokens.connect(expired=True)
    vault = tokens.house.vault
    (held,) = await vault.lease([account.connection], seconds=5, holder="test")
    unproved = Secrets("unproved", "a-token-that-no-provider-knows", account.secrets.expires_at)
    assert await vault.switch(held, holder="test", secrets=unproved, fingerprint="f") == 2
    refreshing, _ = tokens.refreshing()
    got = await refreshing.access_token(account.connection)
    assert got.version == 3
    assert (await tokens.server.token(got.token))["alive"]


async def test_tokens_that_are_gone_are_told_once_and_need_the_user(tokens: RefreshHouse):
    account = await tokens.connect(due=True)
    await tokens.house.vault.destroy(account.connection)
    await tokens.row(account, lambda row: row["state"] == "reauth_required")
    (required,) = await tokens.happened(account, ReauthorisationRequired)
    assert required.code == "tokens_missing"


@pytest.mark.parametrize(("mode", "rotated"), [("google", False), ("microsoft", True), ("strict", True)])
async def test_the_log_says_whether_the_refresh_token_was_replaced(tokens: RefreshHouse, mode, rotated):
    await tokens.server.control(mode=mode)
    account = await tokens.connect(due=True)
    (refreshed,) = await tokens.happened(account, TokenRefreshed)
    assert (refreshed.version, refreshed.rotated, refreshed.asked_by) == (2, rotated, "timer")
    held = await tokens.house.vault.get(account.connection)
    assert (held.secrets.refresh_token != account.secrets.refresh_token) is rotated
    assert (held.previous == account.secrets.refresh_token) is rotated
