"""Which attachments' time is over, and which blobs neither an attachment nor a send has: what the tables say."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from gateways.stores.postgres import Pool

#: A claim is one of a timer's, in the same table: see `TimerClaims`, which also clears it.
CLAIM: Final = """
with due as (
    select a.attachment, a.account, a.user_id, a.due_at from attachments a
    where a.due_at <= now() and not exists (
        select from timer_claims c where c.timer = a.attachment and c.due = a.due_at and c.claimed_until > now())
    order by a.due_at limit $1 for update of a skip locked),
claimed as (
    insert into timer_claims (timer, due, claimed_until)
        select attachment, due_at, now() + interval '5 seconds' from due
    on conflict (timer, due) do update set claims = timer_claims.claims + 1,
        claimed_until = now() + least(interval '5 seconds' * 2 ^ timer_claims.claims, interval '10 minutes')
        where timer_claims.claimed_until <= now()
    returning timer, due)
select due.* from due join claimed on claimed.timer = due.attachment and claimed.due = due.due_at
"""


class HoldsAll(Protocol):
    async def caught_up(self) -> bool:
        """Whether a table holds what the whole log says."""
        ...


class DueAttachment(NamedTuple):
    """An attachment that no send has named in its time."""

    attachment: str
    account: str
    user: str
    due: datetime


class DueAttachments:
    """Asked by any number of processes: what one has claimed no other is given for a while."""

    def __init__(self, pool: Pool, tables: Sequence[HoldsAll]) -> None:
        """`tables`: those of attachments and of sends."""
        self._pool = pool
        self._tables = tables

    async def claim(self, limit: int) -> Sequence[DueAttachment]:
        """The longest overdue first. Raises what Postgres raises."""
        return [DueAttachment(*row) for row in await self._pool.fetch(CLAIM, limit)]

    async def is_named(self, user: str, attachment: str) -> bool:
        """Whether a send of the user names it. Of a send that was promised before, this is never too early to tell."""
        found: bool = await self._pool.fetchval(
            "select exists (select from sends where user_id = $1 and $2 = any(attachments))", user, attachment
        )
        return found

    async def orphans(self, blobs: Sequence[str]) -> list[str]:
        """Those of these blobs that no event has ever named; none where the tables don't hold the whole log.

        Raises what the log or Postgres raises.
        """
        if not blobs or not all([await table.caught_up() for table in self._tables]):
            return []
        rows = await self._pool.fetch(
            "select blob from attachments where blob = any($1) union all select blob from sends where blob = any($1)",
            list(blobs),
        )
        return sorted(set(blobs) - {row["blob"] for row in rows})
