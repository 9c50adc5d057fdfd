"""Blobs in a bucket: Amazon S3 and what speaks its language, or Azure Blob Storage, by obstore.

An object is written whole or not at all there, and is durable once it is acknowledged. What is left of an upload that was cut
short is the bucket's own affair: a lifecycle rule ends it. Objects are named `usr/usr_…/att_….bin`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import islice
from typing import BinaryIO, Final, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from gateways.stores.blobs import BlobMissing, BlobsAway, opened_frames, parts_of, sealed_frames

Got = TypeVar("Got")
Bucket = S3Store | AzureStore
#: Frames that are written by one request; more are written in parts.
FRAMES_AT_ONCE: Final = 6
#: Seconds that one request may take, to connect and in all, and for how long one is tried again.
CONNECT_SECONDS: Final = 3
REQUEST_SECONDS: Final = 20
RETRY_SECONDS: Final = 10
#: Seconds for a blob to be written or read, whatever is tried again underneath.
CALL_SECONDS: Final = 60
#: What the clouds say where it is the bucket that is missing: none of its blobs may look as if it had been erased.
NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")
PLACE: Final = re.compile(
    r"(?P<scheme>s3|az)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(?P<prefix>[A-Za-z0-9._/-]*))?"
)


def bucket(place: str, *, endpoint: str = "") -> Bucket:
    """The bucket or container of `s3://BUCKET[/PREFIX]` or `az://CONTAINER[/PREFIX]`; raises ValueError for any other.

    Credentials and region are found as the clouds' own tools find them in the environment: AWS_ACCESS_KEY_ID, AWS_REGION, a
    role's web identity, a container's or a machine's role; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY,
    AZURE_CLIENT_ID and so on. `endpoint` is the URL of another server that stands in for the cloud's.
    """
    found = PLACE.fullmatch(place)
    if found is None:
        raise ValueError("blobs are in a folder, in s3://BUCKET[/PREFIX], or in az://CONTAINER[/PREFIX]")
    prefix = (found["prefix"] or "").strip("/") or None
    client = {
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "allow_http": endpoint.startswith("http://"),
    }
    retries = {"max_retries": 2, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    given = {"endpoint": endpoint} if endpoint else {}
    kind = S3Store if found["scheme"] == "s3" else AzureStore
    return kind(found["bucket"], prefix=prefix, client_options=client, retry_config=retries, **given)  # type: ignore[arg-type]  # one call for two overloads


class CloudBlobs:
    """Blobs as objects of a bucket."""

    def __init__(self, store: Bucket) -> None:
        self._store = store

    async def put(self, name: str, file: BinaryIO, data_key: bytes, at: bytes) -> None:
        path, frames = _path(name), sealed_frames(file.read, data_key, at)
        first = await asyncio.to_thread(lambda: b"".join(islice(frames, FRAMES_AT_ONCE)))
        following = await asyncio.to_thread(next, frames, b"")
        body = _all(first + following, frames) if following else first
        await _answered(obstore.put_async(self._store, path, body))

    async def read(self, name: str, data_key: bytes, at: bytes) -> bytes:
        try:
            sealed = await _answered(self._sealed(_path(name)))
        except FileNotFoundError as error:
            raise BlobMissing(name) from error
        return await asyncio.to_thread(lambda: b"".join(opened_frames(BytesIO(sealed), data_key, at)))

    async def _sealed(self, path: str) -> bytes:
        found = await obstore.get_async(self._store, path)
        return bytes(await found.bytes_async())

    async def destroy(self, name: str) -> None:
        try:
            await _answered(obstore.delete_async(self._store, _path(name)))
        except FileNotFoundError:
            return

    async def destroy_all(self, subject: str) -> None:
        for path in [path for path, _ in await _answered(self._listed(f"{_kind(subject)}/{subject}"))]:
            await self.destroy(_name(path))

    async def older_than(self, kind: str, seconds: float) -> list[str]:
        moment = datetime.now(UTC) - timedelta(seconds=seconds)
        return sorted(_name(path) for path, at in await _answered(self._listed(kind)) if at <= moment)

    def names(self) -> list[str]:
        return sorted(_name(found["path"]) for some in obstore.list(self._store) for found in some)

    async def _listed(self, prefix: str) -> list[tuple[str, datetime]]:
        found = obstore.list(self._store, prefix)
        return [(each["path"], each["last_modified"]) async for some in found for each in some]


async def _answered(call: Awaitable[Got]) -> Got:
    """Raises BlobsAway where there is no answer, FileNotFoundError where there is no such object."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await call
    except FileNotFoundError as error:
        if any(code in str(error) for code in NO_BUCKET):
            raise BlobsAway("there is no such bucket") from error
        raise
    except (BaseError, OSError) as error:  # a TimeoutError is an OSError
        raise BlobsAway(f"the blob store does not answer: {type(error).__name__}") from error


async def _all(first: bytes, frames: Iterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    while some := await asyncio.to_thread(lambda: b"".join(islice(frames, FRAMES_AT_ONCE))):
        yield some


def _kind(subject: str) -> str:
    return subject.partition("_")[0]


def _path(name: str) -> str:
    subject, within = parts_of(name)
    return f"{_kind(subject)}/{subject}/{within}"


def _name(path: str) -> str:
    return path.partition("/")[2]
