"""Destroys what connecting has left behind: what it remembered on its way, once that has lapsed, and tokens that belong to no
connection: one that was cut short left them, or a restored backup.

Tokens that are destroyed can't be had back, so it has to be sure: the row is so old that its command is in the log or will
never count, and the tables hold what follows from every command that could still tell of its connection.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from domain.connection_events import Provider
from domain.tokens import Revoked, Secrets

log = logging.getLogger(__name__)

#: Seconds between sweeps.
SWEEP_SECONDS: Final = 600.0
#: Seconds after which a command that was to name the row is in the log, where it may wait, or comes too late to count.
OLD_SECONDS: Final = 3600.0
#: Tokens revoked at once.
AT_ONCE: Final = 16


class Held(Protocol):
    @property
    def connection(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def secrets(self) -> Secrets: ...


class KeepsTokens(Protocol):
    async def orphans(self, *, older_than: float) -> Sequence[Held]:
        """Rows that were written so many seconds ago or more, and whose connection is not in the tables or is revoked."""
        ...

    async def destroy(self, connection: str) -> object: ...


class KeepsConnecting(Protocol):
    async def delete_lapsed(self) -> None:
        """Of what is remembered while somebody connects a mailbox, all whose time is over."""
        ...


class KnowsHowFar(Protocol):
    async def staleness(self) -> float | None:
        """The tables hold what follows from everything that was asked for until so many seconds ago.

        None where no such moment is known; raises where nothing can be known.
        """
        ...


class KnowsGrants(Protocol):
    async def is_shared(self, connection: str, user: str, provider: Provider) -> bool:
        """Whether to revoke it at the provider would, or may, end another connection as well."""
        ...


class RevokesTokens(Protocol):
    async def revoke(self, secrets: Secrets) -> Revoked: ...


class Sweeping:
    """Looks for these from time to time."""

    def __init__(
        self,
        vault: KeepsTokens,
        connectors: Mapping[Provider, RevokesTokens],
        tables: KnowsHowFar,
        grants: KnowsGrants,
        connecting: KeepsConnecting,
        *,
        old_seconds: float = OLD_SECONDS,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._vault = vault
        self._connectors = connectors
        self._tables = tables
        self._grants = grants
        self._connecting = connecting
        self._old_seconds = old_seconds
        self._sweep_seconds = sweep_seconds

    async def run(self) -> None:
        """Until cancelled; what can't be reached is waited for."""
        while True:
            for step in (self._connecting.delete_lapsed, self.sweep):
                try:
                    await step()
                except Exception:
                    log.exception("sweeping waits")
            await asyncio.sleep(self._sweep_seconds)

    async def sweep(self) -> int:
        """Tokens of no connection, once: how many there were."""
        stale = await self._tables.staleness()
        if stale is None:
            return 0
        orphans = await self._vault.orphans(older_than=self._old_seconds + stale)
        for some in (orphans[at : at + AT_ONCE] for at in range(0, len(orphans), AT_ONCE)):
            await asyncio.gather(*[self._destroy(held) for held in some])
        return len(orphans)

    async def _destroy(self, held: Held) -> None:
        """What can't be destroyed now is found again; it keeps nobody from the others."""
        try:
            shared = await self._grants.is_shared(held.connection, held.user, held.provider)
            answer = Revoked("none") if shared else await self._connectors[held.provider].revoke(held.secrets)
            await self._vault.destroy(held.connection)
        except Exception:
            log.exception("an orphan is swept later", extra={"connection": held.connection})
            return
        log.warning(
            "tokens of no connection were destroyed",
            extra={"connection": held.connection, "at_provider": answer.at_provider},
        )
