"""Which attachments' time is over, and which blobs neither an attachment nor a send has."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from gateways.stores.postgres import Pool
from gateways.stores.timer_claims import claiming

CLAIM: Final = claiming("attachments", timer="t.attachment", due="due_at", columns="t.account, t.user_id")
#: A blob is named by its attachment, and once that has been deleted by the sends that have it.
NAMED: Final = """
select blob from attachments a where blob = any($1) and (deleted_at is null
    or deleted_at > now() - $2 * interval '1 second'
    or exists (select from sends s where s.user_id = a.user_id and a.attachment = any(s.attachments)))
union all select blob from sends where blob = any($1)
"""
#: Seconds that sends which were asked for before an attachment was deleted have to be decided and told of.
DECIDE_SECONDS: Final = 5.0


class HoldsAll(Protocol):
    """What follows from all that was asked for, as far as a table holds it."""

    async def staleness(self) -> float | None: ...

    async def catches_up(self, *, seconds: float) -> bool: ...


class DueAttachment(NamedTuple):
    """An attachment that no send has named in its time."""

    attachment: str
    account: str
    user: str
    due: datetime


class DueAttachments:
    """Asked by any number of processes: what one has claimed no other is given for a while."""

    def __init__(self, pool: Pool, attachments: HoldsAll, sends: HoldsAll) -> None:
        self._pool = pool
        self._attachments = attachments
        self._sends = sends

    async def claim(self, limit: int) -> Sequence[DueAttachment]:
        """The longest overdue first. Raises what Postgres raises."""
        rows = await self._pool.fetch(CLAIM, limit)
        return [DueAttachment(row["timer"], row["account"], row["user_id"], row["due"]) for row in rows]

    async def may_be_named(self, user: str, attachment: str) -> bool:
        """Whether a send of the user names it, or one may that was asked for until now and is not known to be decided.

        Raises what the log or Postgres raises.
        """
        if not await self._sends.catches_up(seconds=DECIDE_SECONDS):
            return True
        found: bool = await self._pool.fetchval(
            "select exists (select from sends where user_id = $1 and $2 = any(attachments))", user, attachment
        )
        return found

    async def staleness(self) -> float | None:
        """Both tables hold what follows from everything that was asked for until so many seconds ago.

        None where no such moment is known. Raises what the log or Postgres raises.
        """
        of_attachments, of_sends = await asyncio.gather(self._attachments.staleness(), self._sends.staleness())
        return None if of_attachments is None or of_sends is None else max(of_attachments, of_sends)

    async def orphans(self, blobs: Sequence[str], *, older_than: float) -> list[str]:
        """Those of these blobs that nothing names. An attachment that was deleted less than so many seconds ago still counts.

        Raises what Postgres raises.
        """
        if not blobs:
            return []
        rows = await self._pool.fetch(NAMED, list(blobs), older_than)
        return sorted(set(blobs) - {row["blob"] for row in rows})
