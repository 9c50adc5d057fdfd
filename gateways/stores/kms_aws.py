"""Key-encryption keys at AWS KMS. The context is KMS's encryption context, which it keeps beside the ciphertext, and logs.

Credentials, region and endpoint are found as AWS's own tools find them (`AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL_KMS`
and so on). It takes `kms:Encrypt` and `kms:Decrypt`. KMS renews what is behind a key by itself, under the same ARN.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

from gateways.stores.kms import KeyGone, KeysUnreachable
from gateways.stores.sealing import Unsealable

SCHEME: Final = "aws:"
#: Calls under way at once.
AT_ONCE: Final = 32
#: Seconds to connect, and for an answer; each is tried once more.
CONNECT_SECONDS: Final = 2
ANSWER_SECONDS: Final = 3
#: What KMS says of a ciphertext that is none of this key's, or not of this context.
NOT_OURS: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


class AwsKeys:
    """Wraps under one key, and opens what any key of AWS's has wrapped that we may use.

    `key` is an id, an ARN, or `alias/…`; without it nothing can be wrapped. `options` are those of a client of botocore's.
    """

    def __init__(self, key: str | None, **options: Any) -> None:
        self._key = key
        self._options = options
        self._clients: dict[str | None, Any] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        assert self._key is not None
        client = await self._client(_region(self._key))
        said = await self._said(
            client.encrypt(KeyId=self._key, Plaintext=data_key, EncryptionContext=_context(context)), context
        )
        return SCHEME + said["KeyId"], said["CiphertextBlob"]

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        if not wrapped:
            raise Unsealable(context)
        arn = kid.removeprefix(SCHEME)
        client = await self._client(_region(arn))
        said = await self._said(
            client.decrypt(KeyId=arn, CiphertextBlob=wrapped, EncryptionContext=_context(context)), context
        )
        data_key: bytes = said["Plaintext"]
        return data_key

    def is_older_than(self, age: timedelta) -> bool:  # noqa: ARG002 - AWS renews its keys
        return False

    def is_between_keys(self) -> bool:
        return False

    def has_lost(self, kid: str) -> bool:  # noqa: ARG002 - it is not kept by us
        return False

    async def renew(self) -> None:
        """KMS does that."""

    async def retire(self) -> None:
        """KMS does that."""

    async def close(self) -> None:
        """Ends every connection."""
        self._clients.clear()
        await self._stack.aclose()

    async def _said(self, call: Coroutine[Any, Any, Any], context: str) -> Any:
        from aiohttp import ClientError as ConnectionFailed  # noqa: PLC0415 - as below
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as below

        try:
            async with self._room:
                return await call
        except ClientError as error:
            code = error.response["Error"].get("Code", "")
            if code in NOT_OURS:
                raise Unsealable(context) from error
            if code == "NotFoundException":
                raise KeyGone(f"AWS KMS has no such key any more: {error.response['Error'].get('Message')}") from error
            raise KeysUnreachable(f"AWS KMS refuses: {code} {error.response['Error'].get('Message')}") from error
        except (BotoCoreError, ConnectionFailed, OSError) as error:
            raise KeysUnreachable(f"AWS KMS does not answer: {error}") from error

    async def _client(self, region: str | None) -> Any:
        async with self._opening:
            if region not in self._clients:
                self._clients[region] = await self._opened(region)
            return self._clients[region]

    async def _opened(self, region: str | None) -> Any:
        from aiobotocore.config import AioConfig  # noqa: PLC0415 - loaded by those only who keep their keys there
        from aiobotocore.session import get_session  # noqa: PLC0415 - as above
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as above

        for name in ("botocore", "aiobotocore"):  # at `debug` they show what is to be wrapped
            logging.getLogger(name).setLevel(logging.INFO)
        config = AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"total_max_attempts": 2, "mode": "standard"},
            max_pool_connections=AT_ONCE,
        )
        options = {"region_name": region or os.environ.get("AWS_REGION"), "config": config} | self._options
        try:
            return await self._stack.enter_async_context(get_session().create_client("kms", **options))
        except (BotoCoreError, ValueError) as error:
            raise KeysUnreachable(f"AWS KMS can't be asked: {error}") from error


def _context(context: str) -> dict[str, str]:
    return {"postledger": context}


def _region(key: str) -> str | None:
    """An ARN names its own; None is the usual one."""
    parts = key.split(":")
    return parts[3] if len(parts) > 5 and parts[0] == "arn" else None
