"""Which connections' tokens are due to be refreshed: what the tables say, less what somebody is refreshing already."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from domain.connection_events import Provider
from gateways.stores.postgres import Pool

#: A row of the vault that is further on than the tables was refreshed a moment ago, and they are about to hear of it; where
#: they have not after five seconds, whoever refreshed it may not have lived to say so.
DUE: Final = """
select c.connection, c.user_id, c.token_version from connections c left join vault v using (connection)
where c.provider = $1 and c.refresh_due <= now() and (v.connection is null or (
    coalesce(v.leased_until <= now(), true)
    and (v.version <= c.token_version or v.switched_at <= now() - interval '5 seconds')))
order by c.refresh_due limit $2
"""


class DueToken(NamedTuple):
    """A connection that is due, and the version of its token that the tables know."""

    connection: str
    user: str
    version: int


class DueTokens:
    """Read by any number of processes; who refreshes is settled by the vault's lease."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, provider: Provider, limit: int) -> Sequence[DueToken]:
        """This provider's, the longest overdue first. Raises what Postgres raises."""
        return [DueToken(*row) for row in await self._pool.fetch(DUE, provider, limit)]
