"""Reading a mail back: its raw bytes from the log or the blob store, its content from the row or the blob store."""

from typing import Protocol

from domain.fields import Sealed
from gateways.stores.blobs import Blobs
from gateways.stores.keyring import Keyring
from gateways.stores.sealing import open_bytes, place, unseal


class Erased(Exception):
    """The mailbox's data key is gone: what it sealed can't be read by anybody."""


class RawRecords(Protocol):
    async def value(self, partition: int, offset: int) -> bytes:
        """A record of `mail.raw`; LookupError where it is no longer kept, any other error where it can't be read now."""
        ...


class Kept(Protocol):
    """Where a message's parts are, as the row of `messages` says."""

    @property
    def message(self) -> str: ...
    @property
    def mailbox(self) -> str: ...
    @property
    def content(self) -> str | None: ...
    @property
    def content_blob(self) -> str | None: ...
    @property
    def raw_partition(self) -> int: ...
    @property
    def raw_offset(self) -> int: ...
    @property
    def raw_blob(self) -> str | None: ...


class MailStore:
    """Opens what the log and the blob store together hold."""

    def __init__(self, keyring: Keyring, records: RawRecords, blobs: Blobs) -> None:
        self._keyring = keyring
        self._records = records
        self._blobs = blobs

    async def raw(self, kept: Kept) -> bytes:
        """The mail as it came. Raises Erased, or what keeps the log or the store from answering."""
        data_key, at = await self.data_key(kept.mailbox), place("message", kept.message, "raw")
        if kept.raw_blob:
            return await self._blobs.read(kept.raw_blob, data_key, at)
        return open_bytes(data_key, await self._records.value(kept.raw_partition, kept.raw_offset), at)

    async def content(self, kept: Kept) -> bytes | None:
        """The JSON that parsing made; None where the mail could not be parsed. Raises as `raw` does."""
        at = place("message", kept.message, "content")
        if kept.content_blob:
            return await self._blobs.read(kept.content_blob, await self.data_key(kept.mailbox), at)
        return unseal(await self.data_key(kept.mailbox), Sealed(kept.content), at) if kept.content else None

    async def data_key(self, mailbox: str) -> bytes:
        """Raises Erased."""
        found = (await self._keyring.get([mailbox])).get(mailbox)
        if found is None:
            raise Erased(mailbox)
        return found
