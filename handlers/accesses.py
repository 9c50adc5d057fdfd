"""What a provider is called with in a connection's name: its secrets, with a token that no provider has refused."""

from typing import Any, Protocol

from domain.outgoing import Access
from handlers.refresh_parts import AccessToken, TokenUnavailable
from handlers.refused_access import Code, RefusedAccess


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


class AccessRefused(TokenUnavailable):
    """The provider has refused the newest there is: it is not asked again before `retry_after` seconds are over."""

    def __init__(self, code: Code, seconds: float) -> None:
        super().__init__("The provider refuses what it was called with last.", retry_after=seconds)
        self.code: Code = code


class Accesses:
    """Access to providers, by connection."""

    def __init__(self, vault: KeepsSecrets, tokens: GivesTokens, *, scale: float = 1.0) -> None:
        self._vault = vault
        self._tokens = tokens
        self._refused = RefusedAccess(scale=scale)

    async def access(
        self, connection: str, address: str, scopes: list[str], *, refused: int | None = None
    ) -> tuple[Access, int]:
        """The access and the version of its token; `refused` is the version of one that the provider did not take.

        Raises Revoked, TokenUnavailable, AccessRefused among them, and what the vault raises.
        """
        held = await self._vault.get(connection)
        if held is None:
            raise Revoked(connection)
        secrets, version = held.secrets, held.version
        if secrets.servers is None or secrets.servers.oauth is not None:
            token = await self._tokens.access_token(connection, refused=refused)
            secrets, version = type(secrets)(token.token, None, token.expires_at, secrets.servers), token.version
        self._check(connection, version)
        return Access(connection, address, scopes, secrets), version

    async def refusal(self, connection: str) -> AccessRefused | None:
        """Why the provider is not to be asked, as far as we know. Asks the vault only where we know of a refusal.

        Raises what the vault raises.
        """
        if connection not in self._refused or (held := await self._vault.get(connection)) is None:
            return None
        try:
            self._check(connection, held.version)
        except AccessRefused as refused:
            return refused
        return None

    def refused(self, connection: str, version: int, code: Code) -> AccessRefused:
        """The provider has refused this version, though there is none newer."""
        self._refused.heard(connection, version, code)
        _, seconds = self._refused.standing(connection, version) or (code, 0.0)
        return AccessRefused(code, seconds)

    def taken(self, connection: str) -> None:
        """The provider has taken what it was called with."""
        self._refused.taken(connection)

    def _check(self, connection: str, version: int) -> None:
        standing = self._refused.standing(connection, version)
        if standing is not None:
            raise AccessRefused(*standing)
