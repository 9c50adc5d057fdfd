"""What refreshing needs of the house, and what it gives: see `refresh.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, Refreshed, Secrets

AskedBy = Literal["timer", "call"]


class Held(Protocol):
    """What the vault holds of one connection, opened. `previous` is the refresh token before, until the newest is proved."""

    @property
    def connection(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def version(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def previous(self) -> str | None: ...


class KeepsTokens(Protocol):
    """The vault. Everything raises where it can't be reached."""

    async def get(self, connection: str) -> Any: ...

    async def lease(self, connections: Sequence[str], *, seconds: float, holder: str) -> Sequence[Any]:
        """Those of them whose lease was free or has lapsed, leased to the holder now."""
        ...

    async def switch(self, held: Any, *, holder: str, secrets: Secrets, fingerprint: str) -> int | None:
        """Writes new tokens beside the old and switches to them: the new version, or None where the lease was lost."""
        ...

    async def release(self, connection: str, *, holder: str, seconds: float = 0) -> None:
        """Ends the lease, or has it end so much later; nothing happens where it is somebody else's."""
        ...

    def fingerprint_of(self, secrets: Secrets) -> str: ...


class Refreshes(Protocol):
    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed: ...


class Due(Protocol):
    """A connection whose token is due, with the version of it that the tables know."""

    @property
    def connection(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def version(self) -> int: ...


class FindsDue(Protocol):
    async def due(self, provider: Provider, limit: int) -> Sequence[Due]:
        """This provider's connections that are due and that nobody holds a lease on, the longest overdue first."""
        ...


class Measures(Protocol):
    def refreshed(self, provider: str, outcome: str) -> None: ...


class TokenUnavailable(Exception):
    """No usable access token can be had. `reauth`: only the user can mend that; otherwise `retry_after` seconds may."""

    def __init__(self, sentence: str, *, reauth: bool = False, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.reauth = reauth
        self.retry_after = retry_after


class LeaseOver(Exception):
    """This process stood still for so long that its lease may be over: nothing was asked of the provider."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on rows of the vault, under a name used once. A call may begin before `begin_before`, by the loop's clock."""

    holder: str
    begin_before: float


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a provider is called with, and its version: name it when the provider refuses the token."""

    token: str = field(repr=False)
    version: int
    expires_at: datetime | None
