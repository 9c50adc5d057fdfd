"""What a provider is called with in a connection's name: its secrets, with a token that no provider has refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from domain.connection_events import ReauthCode
from domain.outgoing import Access
from handlers.refresh_parts import AccessToken, TokenUnavailable
from handlers.refused_access import Code, RefusedAccess

#: Refusals of the newest there is, with a pause after each, until its user is asked to connect again.
TOLD_AFTER: Final = 2


class KeepsSecrets(Protocol):
    async def get(self, connection: str) -> Any:
        """What the vault holds, opened; None where there is nothing: then no provider is called."""
        ...


class GivesTokens(Protocol):
    async def access_token(self, connection: str, *, refused: int | None = None, held: Any = None) -> AccessToken:
        """`held` is what the vault has just shown. Raises TokenUnavailable."""
        ...

    async def refused(self, connection: str, user: str, version: int, code: ReauthCode) -> None:
        """Tells that a provider does not take what has this version, the newest there is."""
        ...


class Revoked(Exception):
    """The connection has no secrets any more."""


class AccessRefused(TokenUnavailable):
    """The provider has refused the newest there is: it is not asked again before `retry_after` seconds are over."""

    def __init__(self, code: Code, seconds: float) -> None:
        super().__init__("The provider refuses what it was called with last.", retry_after=seconds)
        self.code: Code = code


class Trying:
    """One caller's tries. Where a provider has refused what a connection had last, one at a time goes on: others would each
    ask for a refresh of what was only just given, or fail one login more.
    """

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._is_alone = False

    async def alone(self) -> None:
        """Returns when nobody else who was refused is at it, and keeps them waiting until the end."""
        if not self._is_alone:
            await self._lock.acquire()
            self._is_alone = True

    def end(self) -> None:
        if self._is_alone:
            self._lock.release()


class Accesses:
    """Access to providers, by connection."""

    def __init__(self, vault: KeepsSecrets, tokens: GivesTokens, *, scale: float = 1.0) -> None:
        self._vault = vault
        self._tokens = tokens
        self._refused = RefusedAccess(scale=scale)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def trying(self, connection: str) -> AsyncIterator["Trying"]:
        """The time in which a caller finds out whether a provider takes what a connection has."""
        lock = self._locks.get(connection)
        if lock is None:
            lock = self._locks[connection] = asyncio.Lock()
        trying = Trying(lock)
        try:
            if connection in self._refused:
                await trying.alone()
            yield trying
        finally:
            trying.end()

    async def access(
        self, connection: str, address: str, scopes: list[str], *, refused: int | None = None
    ) -> tuple[Access, int]:
        """The access and the version of its token; `refused` is the version of one that the provider did not take.

        Raises Revoked, TokenUnavailable, AccessRefused among them, and what the vault raises.
        """
        if refused is not None:
            self._check(connection, refused)
        held = await self._vault.get(connection)
        if held is None:
            raise Revoked(connection)
        secrets, version = held.secrets, held.version
        if secrets.servers is None or secrets.servers.oauth is not None:
            token = await self._token(held, refused)
            secrets, version = type(secrets)(token.token, None, token.expires_at, secrets.servers), token.version
        self._check(connection, version)
        return Access(connection, address, scopes, secrets), version

    async def _token(self, held: Any, refused: int | None) -> AccessToken:
        try:
            return await self._tokens.access_token(held.connection, refused=refused, held=held)
        except TokenUnavailable as none:
            if none.reauth:
                self._refused.heard(held.connection, held.version, "reauth_required")
                raise self._as_it_stands(held.connection, held.version, "reauth_required") from none
            raise

    async def renewed(self, connection: str) -> bool:
        """Whether there is something newer than what was refused, or the provider has taken it since.

        Raises what the vault raises.
        """
        held = await self._vault.get(connection)
        return held is None or not self._refused.is_newest(connection, held.version)

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

    async def token_refused(self, connection: str, user: str, version: int) -> AccessRefused:
        """The provider has refused a token that it had only just given: what is to be raised."""
        await self._heard(connection, user, version, "token_refused", "token_refused")
        return self._as_it_stands(connection, version, "token_refused")

    async def login_failed(self, connection: str, user: str, version: int) -> None:
        """A server has refused this password."""
        await self._heard(connection, user, version, "reauth_required", "login_failed")

    async def _heard(self, connection: str, user: str, version: int, code: Code, reauth: ReauthCode) -> None:
        """A provider in trouble refuses what is right, too: told is what is so again after a pause."""
        if self._refused.heard(connection, version, code) >= TOLD_AFTER:
            await self._tokens.refused(connection, user, version, reauth)

    def _as_it_stands(self, connection: str, version: int, code: Code) -> AccessRefused:
        _, seconds = self._refused.standing(connection, version) or (code, 0.0)
        return AccessRefused(code, seconds)

    def taken(self, connection: str) -> None:
        """The provider has taken what it was called with."""
        self._refused.taken(connection)

    def _check(self, connection: str, version: int) -> None:
        standing = self._refused.standing(connection, version)
        if standing is not None:
            raise AccessRefused(*standing)
