"""A user who is deleted: every connection is revoked, none comes after, and what was sealed for them is erased."""

import asyncio
from dataclasses import replace

from domain.account import CreateAccount
from domain.connection_events import ConnectionRefused, ConnectionRevoked, RevocationRequested, Token, UserClosed
from domain.users import CreateUser, DeleteUser
from gateways.stores.sealing import place, seal
from gateways.stores.work_positions import Destruction
from schemas import commands, topics
from schemas.ids import new_id
from tests.support.refresh_house import RefreshHouse


async def account_command(tokens: RefreshHouse, command: CreateUser | DeleteUser) -> None:
    await tokens.house.command_log.command(
        topics.ACCOUNT_COMMANDS.name, command.account, command, vocabulary=commands.ACCOUNT, subject=command.account
    )


async def created(tokens: RefreshHouse) -> DeleteUser:
    """A user in the tables; what deletes them."""
    house, user, account = tokens.house, new_id("usr"), new_id("acc")
    data_key, email = await house.keyring.create(user), f"{user}@example.org"
    digest = house.keyset.digest("user-email", account, email)
    sealed = seal(data_key, email.encode(), place("user", user, "email"))
    await house.command_log.command(
        topics.ACCOUNT_COMMANDS.name,
        account,
        CreateAccount(account, "pro"),
        vocabulary=commands.ACCOUNT,
        subject=account,
    )
    await account_command(tokens, CreateUser(account, user, sealed, digest))
    async with asyncio.timeout(20):
        while not await house.pool.fetchval("select 1 from users where user_id = $1", user):
            await asyncio.sleep(0.03)
    return DeleteUser(account, user, "caller", digest)


async def has_key(tokens: RefreshHouse, user: str) -> bool:
    return bool(await tokens.house.pool.fetchval("select 1 from keyring where subject = $1", user))


async def key_is_gone(tokens: RefreshHouse, user: str) -> None:
    async with asyncio.timeout(20):
        while await has_key(tokens, user):
            await asyncio.sleep(0.03)


async def test_every_connection_of_a_deleted_user_is_revoked_and_none_comes_after(tokens: RefreshHouse):
    deletion = await created(tokens)
    accounts = [await tokens.connect(user=deletion.user) for _ in range(2)]
    accounts.append(await tokens.connect("outlook", user=deletion.user))
    late = await tokens.authorise(
        replace(accounts[0], connection=new_id("con"), login="late@mail.test"), "gmail", Token("f", 1, None)
    )
    await account_command(tokens, deletion)
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
    deletion, other = await created(tokens), await created(tokens)
    house = tokens.house
    backup = await house.pool.fetchrow("select subject, kid, wrapped from keyring where subject = $1", deletion.user)
    await account_command(tokens, deletion)
    await key_is_gone(tokens, deletion.user)
    async with asyncio.timeout(20):
        while not await house.pool.fetchval("select deleted_at from users where user_id = $1", deletion.user):
            await asyncio.sleep(0.03)
    await house.pool.execute("insert into keyring (subject, kid, wrapped) values ($1, $2, $3)", *backup)
    await Destruction(house.keyring, house.blobs).again()
    assert not await has_key(tokens, deletion.user)
    assert await has_key(tokens, other.user)
