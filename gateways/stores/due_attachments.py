"""Which attachments' time is over, and which blobs no attachment has: what the tables say."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from gateways.caught_up import CaughtUp
from gateways.log.event_log import EventLog
from gateways.stores.postgres import Pool
from projections.attachments import PROJECTION

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


class DueAttachment(NamedTuple):
    """An attachment that no send has named in its time."""

    attachment: str
    account: str
    user: str
    due: datetime


class DueAttachments:
    """Asked by any number of processes: what one has claimed no other is given for a while."""

    def __init__(self, pool: Pool, log: EventLog) -> None:
        self._pool = pool
        self._tables = CaughtUp(log, pool, projection=PROJECTION.name, topic=PROJECTION.topic)

    async def claim(self, limit: int) -> Sequence[DueAttachment]:
        """The longest overdue first. Raises what Postgres raises."""
        return [DueAttachment(*row) for row in await self._pool.fetch(CLAIM, limit)]

    async def without_attachment(self, blobs: Sequence[str]) -> list[str]:
        """Those of these blobs that no event has ever named; none where the tables don't hold the whole log.

        Raises what the log or Postgres raises.
        """
        if not blobs or not await self._tables.caught_up():
            return []
        rows = await self._pool.fetch("select blob from attachments where blob = any($1)", list(blobs))
        return sorted(set(blobs) - {row["blob"] for row in rows})
