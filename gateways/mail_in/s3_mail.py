"""Mail that SES put into a bucket of Amazon S3, read as a stream."""

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from gateways.mail_in.door import Unavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_LOG = logging.getLogger(__name__)
_BLOCK = 256 * 1024
# SNS waits 15 s for an answer; half of that is for S3, the rest for the log.
_SECONDS = "7s"


class FetchesMail(Protocol):
    """Reads a mail out of a bucket."""

    def fetch(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """The object's bytes, block by block. Raises Unavailable where they can't be had now or can't be read by us."""


class S3Mail:
    """Reads objects with the credentials that AWS software finds on this machine, unless `config` names others.

    `config` and `options` are those of obstore's S3Store, above all `region` where it isn't in AWS_REGION.
    """

    def __init__(self, config: "S3Config | None" = None, options: "ClientConfig | None" = None) -> None:
        self._config = config
        self._options: ClientConfig = {"timeout": _SECONDS, "connect_timeout": "3s", **(options or {})}
        self._buckets: dict[str, S3Store] = {}

    async def fetch(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """The object's bytes, in blocks of 256 KiB or more. Raises Unavailable."""
        try:
            found = await obstore.get_async(self._bucket(bucket), key)
            if any("x-amz-key" in str(name).lower() for name in found.attributes):
                raise Unavailable("This mail was encrypted by SES itself; use the bucket's own encryption instead.")
            async for block in found.stream(min_chunk_size=_BLOCK):
                yield bytes(block)
        # A missing object is a FileNotFoundError, a key that is no path a ValueError.
        except (BaseError, OSError, ValueError) as error:
            _LOG.warning("A mail in bucket %s can't be read: %s", bucket, type(error).__name__)
            raise Unavailable("The mail can't be read from its bucket now.", retry_after=20) from error

    def _bucket(self, name: str) -> S3Store:
        store = self._buckets.get(name)
        if store is None:
            retries: RetryConfig = {"max_retries": 1}
            store = S3Store(name, config=self._config, client_options=self._options, retry_config=retries)
            self._buckets[name] = store
        return store
