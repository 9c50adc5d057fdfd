"""Ends connections: has the provider declare the tokens void, destroys them here, and reports."""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from domain.connection_commands import ReportRevocation
from domain.connection_events import RevocationRequested
from domain.tokens import Revoked, Secrets
from handlers.effector import Effect
from handlers.reporting import Reports
from schemas import events, topics
from schemas.envelope import Record

NAME: Final = "revoke"
#: Times that a provider is asked before its silence is on record, and the seconds between, which a scale shortens.
TRIES: Final = 3
PAUSE_SECONDS: Final = 2.0


class Held(Protocol):
    @property
    def provider(self) -> str: ...
    @property
    def secrets(self) -> Secrets: ...


class KeepsTokens(Protocol):
    async def get(self, connection: str) -> Held | None: ...

    async def destroy(self, connection: str) -> object: ...


class RevokesTokens(Protocol):
    async def revoke(self, secrets: Secrets) -> Revoked: ...


class Revoking:
    """What the effect needs: the vault, the providers, and a way to report."""

    def __init__(
        self, vault: KeepsTokens, connectors: Mapping[str, RevokesTokens], reports: Reports, *, scale: float = 1.0
    ) -> None:
        self._vault = vault
        self._connectors = connectors
        self._reports = reports
        self._scale = scale

    async def act(self, event: RevocationRequested, record: Record) -> None:
        """Revokes one connection. Where the tokens are gone already, an earlier try was cut short, its answer unknown."""
        del record
        held = await self._vault.get(event.connection)
        answer = await self._at_provider(held) if held else Revoked("failed")
        await self._vault.destroy(event.connection)
        await self._reports.revocation(ReportRevocation(event.connection, event.user, answer.at_provider, answer.cause))

    async def _at_provider(self, held: Held) -> Revoked:
        connector, answer = self._connectors[held.provider], Revoked("failed")
        for number in range(TRIES):
            answer = await connector.revoke(held.secrets)
            if answer.at_provider != "failed":
                break
            await asyncio.sleep(PAUSE_SECONDS * 2**number * self._scale)
        return answer


def effect(revoking: Revoking) -> Effect:
    return Effect(
        NAME, topics.CONNECTION_EVENTS.name, events.CONNECTION, RevocationRequested, revoking.act, concurrency=16
    )
