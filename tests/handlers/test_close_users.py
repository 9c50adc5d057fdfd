"""A user who is deleted: every connection is revoked, none comes after, and what was sealed for them is erased."""

import asyncio
from dataclasses import replace

from domain.connection_events import ConnectionRefused, ConnectionRevoked, RevocationRequested, Token, UserClosed
from gateways.stores.consents import Sessions, Tickets
from gateways.stores.work_positions import Destruction
from schemas.ids import new_id
from tests.support.known_users import created, deleted, tell_accounts
from tests.support.refresh_house import RefreshHouse


async def has_key(tokens: RefreshHouse, user: str) -> bool:
    return bool(await tokens.house.pool.fetchval("select 1 from keyring where subject = $1", user))


async def key_is_gone(tokens: RefreshHouse, user: str) -> None:
    async with asyncio.timeout(20):
        while await has_key(tokens, user):
            await asyncio.sleep(0.03)


async def test_every_connection_of_a_deleted_user_is_revoked_and_none_comes_after(tokens: RefreshHouse):
    deletion = await created(tokens.house)
    accounts = [await tokens.connect(user=deletion.user) for _ in range(2)]
    accounts.append(await tokens.connect("outlook", user=deletion.user))
    late = await tokens.authorise(
        replace(accounts[0], connection=new_id("con"), login="late@mail.test"), "gmail", Token("f", 1, None)
    )
    await tell_accounts(tokens.house, deletion)
    for account in accounts:
        (asked,) = await tokens.happened(account, RevocationRequested)
        (revoked,) = await tokens.happened(account, ConnectionRevoked)
        assert (asked.by, revoked.by) == ("user_deleted", "user_deleted")
        assert await tokens.house.vault.get(account.connection) is None
        await tokens.row(account, lambda row: row["state"] == "revoked")
    await tokens.ask(late)
    (refused,) = await tokens.happened(replace(accounts[0], connection=late.connection), ConnectionRefused)
    assert refused.reason == "user_deleted"
    await key_is_gone(tokens, deletion.user)
    assert await tokens.house.keyring.get([deletion.user]) == {}
    assert len(await tokens.happened(accounts[0], UserClosed)) == 1


async def test_a_key_that_a_restored_backup_brings_back_is_destroyed_again(tokens: RefreshHouse):
    deletion, other = await created(tokens.house), await created(tokens.house)
    house = tokens.house
    backup = await house.pool.fetchrow("select subject, kid, wrapped from keyring where subject = $1", deletion.user)
    await deleted(house, deletion)
    await key_is_gone(tokens, deletion.user)
    await house.pool.execute("insert into keyring (subject, kid, wrapped) values ($1, $2, $3)", *backup)
    await Destruction(house.keyring, house.blobs).again()
    assert not await has_key(tokens, deletion.user)
    assert await has_key(tokens, other.user)


async def test_nothing_is_remembered_of_a_deleted_user_who_was_connecting(tokens: RefreshHouse):
    deletion, other = await created(tokens.house), await created(tokens.house)
    pool, tickets = tokens.house.pool, Tickets(tokens.house.pool, tokens.house.keyset)
    for user in (deletion.user, other.user):
        said = {"login_hint": f"{user}@example.org"}
        await tickets.issue(account=deletion.account, user=user, provider="gmail", said=said)
        await Sessions(pool).open(account=deletion.account, user=user, return_url="https://app.example/back")
    remembered = "select user_id from connect_tickets union all select user_id from connect_sessions"
    await tell_accounts(tokens.house, deletion)
    async with asyncio.timeout(20):
        while deletion.user in (left := [row["user_id"] for row in await pool.fetch(remembered)]):
            await asyncio.sleep(0.03)
    assert left.count(other.user) == 2
