"""Key-encryption keys at Azure Key Vault: RSA keys, wrapping by RSA-OAEP-256 (RFC 8017).

Wrapping takes the public half only, so it is done here and goes on while the vault is down; opening asks the vault. Anybody
can wrap by a public key, and Key Vault knows of no context: so a proof under the installation's own secret is wrapped
together with each data key, which says that it is ours and what it belongs to.

Credentials are found as `azure-identity` finds them (`AZURE_CLIENT_ID` and so on, a managed identity, `az login`). It takes
the permissions *get*, *unwrap key*, and no *wrap key*.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

from gateways.stores.keyset import Keyset
from gateways.stores.kms import KeyGone, KeysUnreachable
from gateways.stores.sealing import Unsealable

SCHEME: Final = "azure:"
DATA_KEY_BYTES: Final = 32
#: Calls under way at once.
AT_ONCE: Final = 32
#: Seconds for which a key's newest version is taken to be the newest.
NEWEST_SECONDS: Final = 60.0
#: Seconds to connect, and for an answer; each is tried once more.
CONNECT_SECONDS: Final = 2
ANSWER_SECONDS: Final = 3


class AzureKeys:
    """Wraps under the newest version of one key, or the one version that is named; opens what any vault's key has wrapped.

    `key` is `https://VAULT/keys/NAME`, or with `/VERSION`; without it nothing can be wrapped. `options` are those of Azure's
    clients.
    """

    def __init__(self, key: str | None, keyset: Keyset, *, credential: Any = None, **options: Any) -> None:
        self._key = key
        self._keyset = keyset
        self._credential = credential
        self._options = {
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "retry_total": 1,
        } | options
        self._opening, self._asking = asyncio.Lock(), asyncio.Lock()
        self._stack = AsyncExitStack()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._by_kid: dict[str, Any] = {}
        self._newest: Any = None
        self._newest_until = 0.0

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm  # noqa: PLC0415 - as below

        client = await self._wrapping()
        proved = data_key + self._keyset.binding(data_key, context)
        said = await self._said(client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, proved), context)
        return SCHEME + said.key_id, said.encrypted_key

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm  # noqa: PLC0415 - as below

        client = await self._crypto(kid.removeprefix(SCHEME))
        said = await self._said(client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped), context)
        data_key, proof = said.key[:DATA_KEY_BYTES], said.key[DATA_KEY_BYTES:]
        if not hmac.compare_digest(proof, self._keyset.binding(data_key, context)):
            raise Unsealable(context)
        return bytes(data_key)

    def is_older_than(self, age: timedelta) -> bool:  # noqa: ARG002 - Key Vault's own policy renews its keys
        return False

    def is_between_keys(self) -> bool:
        return False

    def has_lost(self, kid: str) -> bool:  # noqa: ARG002 - it is not kept by us
        return False

    async def renew(self) -> None:
        """The newest version is asked for again: whoever keeps the vault makes them."""
        self._newest_until = 0.0

    async def retire(self) -> None:
        """Whoever keeps the vault does that."""

    async def close(self) -> None:
        """Ends every connection."""
        self._by_kid.clear()
        self._newest = None
        await self._stack.aclose()

    async def _wrapping(self) -> Any:
        """By the newest version that is known; by the one before while the vault does not say."""
        async with self._asking:
            if time.monotonic() < self._newest_until:
                return self._newest
            try:
                self._newest = await self._crypto(await self._newest_key())
            except KeysUnreachable:
                if self._newest is None or self._newest_until == 0.0:
                    raise
            self._newest_until = time.monotonic() + NEWEST_SECONDS
            return self._newest

    async def _newest_key(self) -> Any:
        from azure.keyvault.keys import KeyVaultKeyIdentifier  # noqa: PLC0415 - as below
        from azure.keyvault.keys.aio import KeyClient  # noqa: PLC0415 - as below

        try:
            named = KeyVaultKeyIdentifier(self._key or "")
            async with self._opening:
                client = KeyClient(named.vault_url, await self._authorised(), **self._options)
        except ValueError as error:
            raise KeysUnreachable(f"{self._key} is no key of a Key Vault: {error}") from error
        async with client:
            return await self._said(client.get_key(named.name, named.version), named.name)

    async def _crypto(self, key: Any) -> Any:
        """A client for one version of a key: by its id, or as the vault has given it, public half and all."""
        from azure.keyvault.keys.crypto.aio import CryptographyClient  # noqa: PLC0415 - as below

        kid = key if isinstance(key, str) else key.id
        async with self._opening:
            if kid not in self._by_kid:
                try:
                    client = CryptographyClient(key, await self._authorised(), **self._options)
                except ValueError as error:
                    raise KeysUnreachable(f"{kid} is no key of a Key Vault: {error}") from error
                self._by_kid[kid] = await self._stack.enter_async_context(client)
            return self._by_kid[kid]

    async def _authorised(self) -> Any:
        logging.getLogger("azure").setLevel(logging.WARNING)  # a line for each request, otherwise
        if self._credential is None:
            from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - loaded by those who keep keys there

            self._credential = await self._stack.enter_async_context(DefaultAzureCredential())
        return self._credential

    async def _said(self, call: Awaitable[Any], context: str) -> Any:
        from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError  # noqa: PLC0415 - as below

        try:
            async with self._room:
                return await call
        except ResourceNotFoundError as error:
            raise KeyGone(f"Azure Key Vault has no such key any more: {error.message}") from error
        except HttpResponseError as error:
            if error.status_code == 400:
                raise Unsealable(context) from error
            raise KeysUnreachable(f"Azure Key Vault refuses: {error.status_code} {error.message}") from error
        except (AzureError, OSError, ValueError) as error:
            raise KeysUnreachable(f"Azure Key Vault does not answer: {error}") from error
