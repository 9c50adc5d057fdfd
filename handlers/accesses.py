"""What a provider is called with in a connection's name: its secrets, with a token that no provider has refused."""

from typing import Any, Protocol

from domain.outgoing import Access
from handlers.refresh_parts import AccessToken


class KeepsSecrets(Protocol):
    async def get(self, connection: str) -> Any:
        """What the vault holds, opened; None where there is nothing: then no provider is called."""
        ...


class GivesTokens(Protocol):
    async def access_token(self, connection: str, *, refused: int | None = None) -> AccessToken:
        """Raises TokenUnavailable."""
        ...


class Revoked(Exception):
    """The connection has no secrets any more."""


class Accesses:
    """Access to providers, by connection."""

    def __init__(self, vault: KeepsSecrets, tokens: GivesTokens) -> None:
        self._vault = vault
        self._tokens = tokens

    async def access(
        self, connection: str, address: str, scopes: list[str], *, refused: int | None = None
    ) -> tuple[Access, int]:
        """The access and the version of its token; `refused` is the version of one that the provider did not take.

        Raises Revoked, TokenUnavailable, and what the vault raises.
        """
        held = await self._vault.get(connection)
        if held is None:
            raise Revoked(connection)
        secrets, version = held.secrets, held.version
        if secrets.servers is None or secrets.servers.oauth is not None:
            token = await self._tokens.access_token(connection, refused=refused)
            secrets, version = type(secrets)(token.token, None, token.expires_at, secrets.servers), token.version
        return Access(connection, address, scopes, secrets), version
