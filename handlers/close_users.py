"""Tells connections that a user was deleted, and destroys the key that the user's name and addresses are sealed under,
and what is remembered of a connecting of theirs.
"""

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


class DeletesConnecting(Protocol):
    async def delete_user(self, user: str) -> None:
        """What is remembered of this user while they connect a mailbox: other keys than theirs open it."""
        ...


def effect(log: AppendsCommands, keys: DestroysKeys, connecting: DeletesConnecting) -> Effect:
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
        await connecting.delete_user(event.user)

    return Effect(NAME, topics.ACCOUNT_EVENTS.name, events.ACCOUNT, UserDeleted, act)
