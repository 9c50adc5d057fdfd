"""Sends that a timer has to look after, those that wait for a connection, and the connections that a user has."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from domain.send import FOR_ACCESS
from domain.send_commands import KnownConnection
from gateways.stores.postgres import Pool
from gateways.stores.timer_claims import claiming

CLAIM: Final = claiming(
    "sends", timer="'send/' || t.send", due="due", columns="t.send, t.user_id, t.due_kind, t.attempt, t.traceparent"
)
CONNECTIONS: Final = """
select user_id, connection, provider, account_digest, state, last_error is not null and state = 'active' as troubled
from connections where user_id = any($1) and state <> 'revoked' order by connected_at desc, connection desc
"""


class DueSend(NamedTuple):
    """A send whose timer is due: `kind` is `start` or `doubt`, `attempt` the one that a doubt is about.

    `traceparent`: the trace that it belongs to (W3C Trace Context).
    """

    send: str
    user: str
    due: datetime
    kind: str
    attempt: int
    traceparent: str | None


class WaitingSend(NamedTuple):
    send: str
    user: str
    traceparent: str | None


class DueSends:
    """What the tables of sends and connections say. Everything raises what Postgres raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int) -> Sequence[DueSend]:
        """Due sends that nobody has claimed, claimed for the caller."""
        rows = await self._pool.fetch(CLAIM, limit)
        return [
            DueSend(row["send"], row["user_id"], row["due"], row["due_kind"], row["attempt"], row["traceparent"])
            for row in rows
        ]

    async def connections(self, users: Sequence[str]) -> dict[str, list[KnownConnection]]:
        """By user: the connections that are not revoked, the most recently connected first."""
        found: dict[str, list[KnownConnection]] = {user: [] for user in users}
        for user, *known in await self._pool.fetch(CONNECTIONS, users):
            found[user].append(KnownConnection(*known))
        return found

    async def provider_of(self, send: str) -> str | None:
        """The provider of the connection that was chosen last; None where none was, or the send is not shown."""
        found: str | None = await self._pool.fetchval("select provider from sends where send = $1", send)
        return found

    async def waiting_for(self, connection: str) -> Sequence[WaitingSend]:
        """Those that wait until the user has connected it again, or may do so by now: the table may be behind."""
        rows = await self._pool.fetch(
            "select send, user_id, traceparent from sends where connection = $1 and "
            "(status = 'deferred' and code = any($2) or status in ('queued', 'sending')) order by send",
            connection,
            FOR_ACCESS,
        )
        return [WaitingSend(*row) for row in rows]

    async def held_by(self, connection: str, user: str) -> Sequence[WaitingSend]:
        """Those that wait to go out by it, and all of the user's that are scheduled."""
        rows = await self._pool.fetch(
            "select send, user_id, traceparent from sends where connection = $1 and status in ('queued', 'deferred') "
            "union select send, user_id, traceparent from sends where user_id = $2 and status = 'scheduled' order by send",
            connection,
            user,
        )
        return [WaitingSend(*row) for row in rows]
