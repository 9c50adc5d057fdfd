"""Key-encryption keys: what wraps the data keys, wherever it is kept. One gateway with two methods (DESIGN 3.3)."""

from typing import Protocol

from gateways.stores.keyset import Keyset


class KeyEncryption(Protocol):
    """Wraps data keys and opens them again. `context` is what a data key belongs to: for any other it can't be opened."""

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        """The id of the key-encryption key, and the data key wrapped by it."""
        ...

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        """The data key. Raises KeysetError where that key-encryption key is not to be had."""
        ...


class LocalKeys:
    """The keys of the keyset file."""

    def __init__(self, keyset: Keyset) -> None:
        self._keyset = keyset

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        return self._keyset.wrap(data_key, context)

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        return self._keyset.unwrap(kid, wrapped, context)
