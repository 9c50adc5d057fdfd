"""Key-encryption keys: what wraps the data keys, wherever it is kept. One gateway with two methods (DESIGN 3.3).

A key that is *gone*, or opens something else, is an answer. A keeper that can't be *reached*, or will have nothing to do with
us, is none: its error is one of those that are waited for, like Postgres's (`postgres.UNREACHABLE`), and erases nothing.
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from gateways.stores import keyset_file
from gateways.stores.keyset import Keyset, KeysetError


class KeyGone(KeysetError):
    """The key-encryption key is no longer where it was kept; the sentence says which."""


class KeysUnreachable(ConnectionError):
    """Whoever keeps the key-encryption keys does not answer, or refuses us: nothing is known of the key."""


class KeyEncryption(Protocol):
    """Wraps data keys and opens them again. `context` is what a data key belongs to: for any other it can't be opened."""

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        """The id of the key-encryption key, and the data key wrapped by it. Raises KeysetError, KeysUnreachable."""
        ...

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        """The data key.

        Raises KeysetError where that key-encryption key is not to be had any more, Unsealable where it did not wrap this for
        this context, KeysUnreachable where that is not known.
        """
        ...


class KeyKeeper(KeyEncryption, Protocol):
    """What rotating asks beside: a new key, where it is ours to make one. Raises as the above do."""

    def is_older_than(self, age: timedelta) -> bool:
        """Whether the key that wraps is so old that we have to make another."""
        ...

    def is_between_keys(self) -> bool:
        """Whether a new key was made and the one before it has not been retired."""
        ...

    def has_lost(self, kid: str) -> bool:
        """Whether this key was made by us and is not to be had: we have a copy of our keys from before it was made."""
        ...

    async def renew(self) -> None:
        """The next wrapping is done by a new key; or by the newest, where somebody else makes them."""
        ...

    async def retire(self) -> None:
        """Earlier keys of ours open what they have wrapped, and wrap nothing more."""
        ...


class LocalKeys:
    """The keys of the keyset file."""

    def __init__(self, keyset: Keyset) -> None:
        self._keyset = keyset

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        return self._keyset.wrap(data_key, context)

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        return self._keyset.unwrap(kid, wrapped, context)

    def is_older_than(self, age: timedelta) -> bool:
        self._keyset.look()
        return datetime.now(UTC) - self._keyset.made_at >= age

    def is_between_keys(self) -> bool:
        self._keyset.look()
        return self._keyset.is_between_keys

    def has_lost(self, kid: str) -> bool:
        self._keyset.look()
        return kid.startswith(keyset_file.LOCAL_KID) and not self._keyset.has(kid)

    async def renew(self) -> None:
        keyset_file.add_primary(self._keyset.path)
        self._keyset.look()

    async def retire(self) -> None:
        keyset_file.disable_others(self._keyset.path)
        self._keyset.look()

    async def close(self) -> None:
        """Nothing is open."""
