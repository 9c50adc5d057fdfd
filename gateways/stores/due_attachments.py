"""Which attachments' time is over, and which blobs neither an attachment nor a send has: what the tables say."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from gateways.stores.postgres import Pool
from gateways.stores.timer_claims import claiming

CLAIM: Final = claiming("attachments", timer="t.attachment", due="due_at", columns="t.account, t.user_id")


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
        rows = await self._pool.fetch(CLAIM, limit)
        return [DueAttachment(row["timer"], row["account"], row["user_id"], row["due"]) for row in rows]

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
