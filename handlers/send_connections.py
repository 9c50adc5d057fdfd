"""What becomes of waiting sends where their connection is renewed, restored, or ended."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from domain.connection_events import ConnectionAuthorised, ConnectionRestored, RevocationRequested
from domain.send_commands import KnownConnection, StopSend, WakeSend
from handlers.effector import Effect
from handlers.send_reports import SendReports
from handlers.tiers import trace_of
from schemas import events, topics
from schemas.envelope import Record

NAME: Final = "send-connections"
#: Commands on their way at once.
AT_ONCE: Final = 32


class WaitingSend(Protocol):
    @property
    def send(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def traceparent(self) -> str | None: ...


class FindsSends(Protocol):
    async def waiting_for(self, connection: str) -> Sequence[Any]: ...

    async def held_by(self, connection: str, user: str) -> Sequence[Any]: ...

    async def connections(self, users: Sequence[str]) -> Mapping[str, list[KnownConnection]]: ...


class FollowingConnections:
    """What the effect needs: a way to find sends, and one to tell their decider."""

    def __init__(self, sends: FindsSends, reports: SendReports, *, scale: float = 1.0) -> None:
        self._sends = sends
        self._reports = reports
        self._scale = scale

    async def act(self, event: Any, record: Record) -> None:
        """Each command's id derives from the event: asked for again, it changes nothing."""
        if isinstance(event, ConnectionAuthorised | ConnectionRestored):
            found = await self._sends.waiting_for(event.connection)
            commands: list[Any] = [WakeSend(one.send, one.user, event.connection, self._scale) for one in found]
        else:
            found = await self._sends.held_by(event.connection, event.user)
            known = (await self._sends.connections([event.user])).get(event.user, [])
            left = [one for one in known if one.connection != event.connection] if event.by != "user_deleted" else []
            by: Any = "user_deleted" if event.by == "user_deleted" else "connection_revoked"
            commands = [StopSend(one.send, one.user, event.connection, by, left) for one in found]
        told = [(command, _trace_of(one, record)) for one, command in zip(found, commands, strict=True)]
        for start in range(0, len(told), AT_ONCE):
            await asyncio.gather(
                *[
                    self._reports.tell(command, trace, command_id=f"{record.source}/{command.send}")
                    for command, trace in told[start : start + AT_ONCE]
                ]
            )


def _trace_of(send: WaitingSend, record: Record) -> Mapping[str, str]:
    """A send stays in its own trace; where none is known, it goes on in that of the connection."""
    return {"traceparent": send.traceparent} if send.traceparent else trace_of(record)


def effect(following: FollowingConnections) -> Effect:
    """Acts on connections that are there again, or are to be no more."""
    wants = (ConnectionAuthorised, ConnectionRestored, RevocationRequested)
    return Effect(NAME, topics.CONNECTION_EVENTS.name, events.CONNECTION, wants, following.act)
