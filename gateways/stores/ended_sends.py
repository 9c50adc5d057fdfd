"""Sends that have ended, for an operator who has them tried again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from gateways.stores.postgres import Pool
from projections.send_lists import USER_IS_THERE

ROW: Final = "send, user_id, owner, status, code, provider, ended_at, attempt"
#: The oldest first: whoever has waited longest goes out first.
OF_STATUS: Final = f"""
select {ROW} from sends
where status = $1 and ($2::text is null or code = $2) and ($3::text is null or provider = $3)
    and ($4::timestamptz is null or ended_at >= $4) and {USER_IS_THERE}
order by ended_at, send
"""  # noqa: S608 - a constant
NAMED: Final = f"select {ROW} from sends where send = any($1) and {USER_IS_THERE}"  # noqa: S608 - a constant


class EndedSend(NamedTuple):
    """What the tables say of one send; a named one may not have ended, and has no `ended_at` then."""

    send: str
    user: str
    owner: str
    status: str
    code: str | None
    provider: str | None
    ended_at: datetime | None
    attempt: int


class EndedSends:
    """Questions of an operator, who sees what its account may see. Everything raises what Postgres raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of_status(
        self, status: str, *, code: str | None = None, provider: str | None = None, since: datetime | None = None
    ) -> Sequence[EndedSend]:
        """All that stand so; narrowed to a code, a provider, and those that ended at `since` (UTC) or later."""
        return [EndedSend(*row) for row in await self._pool.fetch(OF_STATUS, status, code, provider, since)]

    async def named(self, sends: Sequence[str]) -> dict[str, EndedSend]:
        """By id, those that there are."""
        return {row["send"]: EndedSend(*row) for row in await self._pool.fetch(NAMED, sends)}
