"""Whether what is revoked at a provider would end another connection as well."""

from typing import Final

from domain.connection_events import Provider
from gateways.stores.postgres import Pool

#: Google ends all that one person granted us at once, whichever token is named. Whose mailbox an orphan of the vault is
#: nobody knows: it may be the one that its user has connected since.
SHARED: Final = """
select exists (select from connections other left join connections one on one.connection = $1
where other.connection <> $1 and other.provider = $3 and other.state <> 'revoked'
    and case when one.connection is null then other.user_id = $2 else other.account_digest = one.account_digest end)
"""


class SharedGrants:
    """Asks the tables."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def is_shared(self, connection: str, user: str, provider: Provider) -> bool:
        """Whether a connection that is not revoked is of the same mailbox, or may be. Raises what Postgres raises."""
        return bool(await self._pool.fetchval(SHARED, connection, user, provider))
