"""Users that the tables know, in a house that works and projects."""

import asyncio

from domain.account import CreateAccount
from domain.users import CreateUser, DeleteUser
from gateways.stores.sealing import place, seal
from main import House
from schemas import commands, topics
from schemas.ids import new_id


async def tell_accounts(house: House, command: CreateAccount | CreateUser | DeleteUser) -> None:
    """Appends a command to accounts."""
    await house.command_log.command(
        topics.ACCOUNT_COMMANDS.name, command.account, command, vocabulary=commands.ACCOUNT, subject=command.account
    )


async def created(house: House) -> DeleteUser:
    """A user in the tables; what deletes them."""
    user, account = new_id("usr"), new_id("acc")
    data_key, email = await house.keyring.create(user), f"{user}@example.org"
    digest = house.keyset.digest("user-email", account, email)
    await tell_accounts(house, CreateAccount(account, "pro"))
    await tell_accounts(
        house, CreateUser(account, user, seal(data_key, email.encode(), place("user", user, "email")), digest)
    )
    await becomes(house, user, "deleted_at is null")
    return DeleteUser(account, user, "caller", digest)


async def deleted(house: House, deletion: DeleteUser) -> None:
    """Until the tables say so."""
    await tell_accounts(house, deletion)
    await becomes(house, deletion.user, "deleted_at is not null")


async def becomes(house: House, user: str, condition: str) -> None:
    """Until the user's row is so."""
    query = f"select 1 from users where user_id = $1 and {condition}"
    async with asyncio.timeout(20):
        while not await house.pool.fetchval(query, user):
            await asyncio.sleep(0.03)
