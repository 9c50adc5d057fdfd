"""Tells connections that a user was deleted, and destroys the key that the user's name and addresses are sealed under."""

from typing import Final, Protocol

from domain.connection_commands import CloseUser
from domain.users import UserDeleted
from handlers.command_log import AppendsCommands
from handlers.effector import Effect
from schemas import commands, events, topics
from schemas.envelope import Record

NAME: Final = "close-users"


class DestroysKeys(Protocol):
    async def destroy(self, *subjects: str) -> None: ...


def effect(log: AppendsCommands, keys: DestroysKeys) -> Effect:
    async def act(event: UserDeleted, record: Record) -> None:
        del record
        await log.command(
            topics.CONNECTION_COMMANDS.name,
            event.user,
            CloseUser(event.user),
            vocabulary=commands.CONNECTION,
            subject=event.user,
            command_id=f"{event.user}.closed",
        )
        await keys.destroy(event.user)

    return Effect(NAME, topics.ACCOUNT_EVENTS.name, events.ACCOUNT, UserDeleted, act)
