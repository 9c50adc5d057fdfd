"""Ends connections: has the provider declare the tokens void, destroys them here, and reports.

It claims the lease on the vault's row first, as whoever refreshes does: then nobody is asking the provider, or about to ask,
with tokens that are void when this is over, and it is the newest tokens that are revoked.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from domain.connection_commands import ReportRevocation
from domain.connection_events import Provider, RevocationRequested
from domain.tokens import Revoked, Secrets
from handlers.effector import Effect
from handlers.reporting import Reports
from schemas import events, topics
from schemas.envelope import Record

log = logging.getLogger(__name__)

NAME: Final = "revoke"
#: Times that a provider is asked before its silence is on record, and the seconds between, which a scale shortens.
TRIES: Final = 3
PAUSE_SECONDS: Final = 2.0
#: Seconds of the lease: longer than all tries.
LEASE_SECONDS: Final = 120.0
#: Seconds between looks at a row that somebody refreshes.
GLANCE_SECONDS: Final = 0.1


class Held(Protocol):
    @property
    def provider(self) -> Provider: ...
    @property
    def secrets(self) -> Secrets: ...


class KeepsTokens(Protocol):
    async def get(self, connection: str) -> Any:
        """What there is. Raises ValueError where that can't be opened, and what is raised where nothing can be reached."""
        ...

    async def lease(self, connections: Sequence[str], *, seconds: float, holder: str) -> Sequence[Any]: ...

    async def release(self, connection: str, *, holder: str, seconds: float = 0) -> None: ...

    async def destroy(self, connection: str) -> object: ...


class KnowsGrants(Protocol):
    async def is_shared(self, connection: str, user: str, provider: Provider) -> bool:
        """Whether to revoke it at the provider would, or may, end another connection as well."""
        ...


class RevokesTokens(Protocol):
    async def revoke(self, secrets: Secrets) -> Revoked: ...


class Revoking:
    """What the effect needs: the vault, the providers, and a way to report."""

    def __init__(
        self,
        vault: KeepsTokens,
        connectors: Mapping[Provider, RevokesTokens],
        grants: KnowsGrants,
        reports: Reports,
        *,
        scale: float = 1.0,
    ) -> None:
        self._grants = grants
        self._vault = vault
        self._connectors = connectors
        self._reports = reports
        self._scale = scale

    async def act(self, event: RevocationRequested, record: Record) -> None:
        """Revokes one connection. Where the tokens are gone already, an earlier try was cut short, its answer unknown."""
        held = await self._leased(event.connection, f"{NAME}/{record.partition}/{record.offset}")
        if held is None:
            answer = Revoked("failed")
        elif await self._grants.is_shared(event.connection, event.user, held.provider):
            answer = Revoked("none")
        else:
            answer = await self._at_provider(held)
        await self._vault.destroy(event.connection)
        await self._reports.revocation(ReportRevocation(event.connection, event.user, answer.at_provider, answer.cause))

    async def _leased(self, connection: str, holder: str) -> Held | None:
        """Waits for whoever refreshes. An earlier try that was cut short held the lease under the name that we have."""
        await self._vault.release(connection, holder=holder)
        while True:
            leased: Sequence[Held] = await self._vault.lease([connection], seconds=LEASE_SECONDS, holder=holder)
            if leased:
                return leased[0]
            try:
                if await self._vault.get(connection) is None:
                    return None
            except ValueError:  # nobody can use what can't be opened, and the provider can't be told of it
                log.exception("tokens that can't be opened are destroyed", extra={"connection": connection})
                return None
            await asyncio.sleep(GLANCE_SECONDS)

    async def _at_provider(self, held: Held) -> Revoked:
        connector = self._connectors[held.provider]
        answer = await connector.revoke(held.secrets)
        for number in range(TRIES - 1):
            if answer.at_provider != "failed":
                break
            await asyncio.sleep(PAUSE_SECONDS * 2**number * self._scale)
            answer = await connector.revoke(held.secrets)
        return answer


def effect(revoking: Revoking) -> Effect:
    """Revokes whatever is to be revoked."""
    return Effect(
        NAME, topics.CONNECTION_EVENTS.name, events.CONNECTION, RevocationRequested, revoking.act, concurrency=16
    )
