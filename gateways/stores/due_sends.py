"""Sends that a timer has to look after, those that wait for a connection, and the connections that a user has."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from domain.send_commands import KnownConnection
from gateways.stores.postgres import Pool

#: As the claims of other timers: a first one lasts five seconds, further ones longer, so that commands never pile up.
CLAIM: Final = """
with due as (
    select s.send, s.user_id, s.due, s.due_kind, s.attempt from sends s
    where s.due <= now() and not exists (
        select from timer_claims c where c.timer = 'send/' || s.send and c.due = s.due and c.claimed_until > now())
    order by s.due limit $1 for update of s skip locked),
claimed as (
    insert into timer_claims (timer, due, claimed_until) select 'send/' || send, due, now() + interval '5 seconds' from due
    on conflict (timer, due) do update set claims = timer_claims.claims + 1,
        claimed_until = now() + least(interval '5 seconds' * 2 ^ timer_claims.claims, interval '10 minutes')
        where timer_claims.claimed_until <= now()
    returning timer, due)
select due.* from due join claimed on claimed.timer = 'send/' || due.send and claimed.due = due.due
"""
CONNECTIONS: Final = """
select user_id, connection, provider, account_digest, state, last_error is not null and state = 'active' as troubled
from connections where user_id = any($1) and state <> 'revoked' order by connected_at desc, connection desc
"""


class DueSend(NamedTuple):
    """A send whose timer is due: `kind` is `start` or `doubt`, `attempt` the one that a doubt is about."""

    send: str
    user: str
    due: datetime
    kind: str
    attempt: int


class WaitingSend(NamedTuple):
    send: str
    user: str


class DueSends:
    """What the tables of sends and connections say. Everything raises what Postgres raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int) -> Sequence[DueSend]:
        """Due sends that nobody has claimed, claimed for the caller."""
        return [DueSend(*row) for row in await self._pool.fetch(CLAIM, limit)]

    async def connections(self, users: Sequence[str]) -> dict[str, list[KnownConnection]]:
        """By user: the connections that are not revoked, the most recently connected first."""
        found: dict[str, list[KnownConnection]] = {user: [] for user in users}
        for user, *known in await self._pool.fetch(CONNECTIONS, users):
            found[user].append(KnownConnection(*known))
        return found

    async def waiting_for(self, connection: str) -> Sequence[WaitingSend]:
        """Those that wait until the user has connected it again."""
        rows = await self._pool.fetch(
            "select send, user_id from sends where connection = $1 and status = 'deferred' and code = 'reauth_required' "
            "order by send",
            connection,
        )
        return [WaitingSend(*row) for row in rows]

    async def held_by(self, connection: str, user: str) -> Sequence[WaitingSend]:
        """Those that wait to go out by it, and all of the user's that are scheduled."""
        rows = await self._pool.fetch(
            "select send, user_id from sends where connection = $1 and status in ('queued', 'deferred') "
            "union select send, user_id from sends where user_id = $2 and status = 'scheduled' order by send",
            connection,
            user,
        )
        return [WaitingSend(*row) for row in rows]
