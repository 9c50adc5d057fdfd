"""The blob stores: a folder, and buckets of the two clouds, by one contract and against servers of their kind."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import boto3
import pytest

from gateways.local_ports import free_port
from gateways.stores.blobs import FRAME_BYTES, BlobMissing, Blobs, BlobsAway, LocalBlobs
from gateways.stores.blobs_chosen import open_blobs
from gateways.stores.blobs_cloud import CloudBlobs
from gateways.stores.sealing import Unsealable, new_data_key

KEY, AT = new_data_key(), b"attachment|att_1|content"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
BUCKET = "s3://blobs/below/this"
CANARY = b"canary in a blob " * 9


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a moto server of this module, which has the bucket."""
    command = [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(line.rpartition(" ")[2].strip() for line in server.stderr if "Running on http://" in line)
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=address, **keys).create_bucket(Bucket="blobs")
        yield address
        server.terminate()
        server.stderr.close()


@pytest.fixture(params=["local", "s3"])
async def blobs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Blobs]:
    """An empty store of each kind, as a setting opens it."""
    if request.param == "local":
        yield open_blobs("", tmp_path / "blobs")
        return
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    found = open_blobs(BUCKET, tmp_path, endpoint=request.getfixturevalue("moto"))
    assert isinstance(found, CloudBlobs)
    for subject in {name.partition("/")[0] for name in found.names()}:
        await found.destroy_all(subject)
    yield found


@pytest.mark.parametrize(
    "size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 6 * FRAME_BYTES, 14 * FRAME_BYTES + 7]
)
async def test_what_is_put_is_read_back(blobs: Blobs, size: int) -> None:
    body = os.urandom(size)
    await blobs.put("usr_1/att_1.bin", BytesIO(body), KEY, AT)
    assert await blobs.read("usr_1/att_1.bin", KEY, AT) == body
    assert blobs.names() == ["usr_1/att_1.bin"]


async def test_what_is_sealed_for_one_place_opens_nowhere_else(blobs: Blobs) -> None:
    await blobs.put("usr_1/att_1.bin", BytesIO(CANARY), KEY, AT)
    for key, at in ((new_data_key(), AT), (KEY, b"attachment|att_2|content")):
        with pytest.raises(Unsealable):
            await blobs.read("usr_1/att_1.bin", key, at)


async def test_one_is_destroyed_alone_and_a_subjects_all_together(blobs: Blobs) -> None:
    for name in ("usr_1/att_1.bin", "usr_1/att_2.bin", "usr_12/att_3.bin", "mbx_1/msg_1.raw"):
        await blobs.put(name, BytesIO(b"x"), KEY, AT)
    for _ in range(2):
        await blobs.destroy("usr_1/att_2.bin")
    assert blobs.names() == ["mbx_1/msg_1.raw", "usr_1/att_1.bin", "usr_12/att_3.bin"]
    for _ in range(2):
        await blobs.destroy_all("usr_1")
    assert blobs.names() == ["mbx_1/msg_1.raw", "usr_12/att_3.bin"]
    with pytest.raises(BlobMissing):
        await blobs.read("usr_1/att_1.bin", KEY, AT)


async def test_the_old_ones_of_a_kind_are_named(blobs: Blobs) -> None:
    for name in ("usr_1/att_1.bin", "mbx_1/msg_1.raw"):
        await blobs.put(name, BytesIO(b"x"), KEY, AT)
    assert await blobs.older_than("usr", 3600) == []
    assert await blobs.older_than("usr", -3600) == ["usr_1/att_1.bin"]
    assert await blobs.older_than("mbx", -3600) == ["mbx_1/msg_1.raw"]
    assert await blobs.older_than("us", -3600) == []


@pytest.mark.parametrize(
    "name", ["../x", "usr_1/../x.bin", "/usr_1/a_1.bin", "usr_1", "usr_1/att_1", "usr_1/att_1.bin/x", ""]
)
async def test_a_name_that_is_none_is_refused(blobs: Blobs, name: str) -> None:
    for act in (blobs.read(name, KEY, AT), blobs.put(name, BytesIO(b"x"), KEY, AT), blobs.destroy(name)):
        with pytest.raises(ValueError, match="a blob's name"):
            await act
    assert blobs.names() == []


class Broken:
    """A file that can't be read to its end."""

    def __init__(self, frames: int) -> None:
        self._left = frames

    def read(self, size: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError("gone")
        return os.urandom(size)


@pytest.mark.parametrize("frames", [0, 1, 3, 9])
async def test_a_put_that_fails_midway_leaves_no_blob(blobs: Blobs, frames: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone|does not answer"):
        await blobs.put("usr_1/att_1.bin", cast("BinaryIO", Broken(frames)), KEY, AT)
    assert blobs.names() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_draft_of_a_killed_writer_is_cleared_away(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    await blobs.put("usr_1/att_1.bin", BytesIO(b"x"), KEY, AT)
    (folder,) = tmp_path.glob("??/usr_1")
    draft = folder / ".att_2.bin.4711"
    draft.touch()
    assert await blobs.older_than("usr", 60) == []
    assert draft.exists()
    os.utime(draft, (time.time() - 100, time.time() - 100))
    assert await blobs.older_than("usr", 60) == []
    assert not draft.exists()


@pytest.mark.parametrize("place", ["s3://blobs", "az://blobs"])
async def test_a_store_that_does_not_answer_is_away(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = {"AZURE_STORAGE_ACCOUNT_NAME": "acc", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}
    for name, value in (ENVIRONMENT | azure).items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs(place, tmp_path, endpoint=f"http://127.0.0.1:{free_port()}")
    acts = (
        blobs.put("usr_1/att_1.bin", BytesIO(CANARY), KEY, AT),
        blobs.read("usr_1/att_1.bin", KEY, AT),
        blobs.destroy("usr_1/att_1.bin"),
        blobs.destroy_all("usr_1"),
        blobs.older_than("usr", 0),
    )
    async with asyncio.timeout(15):
        found = await asyncio.gather(*acts, return_exceptions=True)
    assert [type(each) for each in found] == [BlobsAway] * len(acts)
    assert "127.0.0.1" not in str(found)


async def test_a_bucket_that_is_not_there_is_away(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's mistake must not look as if blobs had been erased."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs("s3://nowhere", tmp_path, endpoint=moto)
    with pytest.raises(BlobsAway):
        await blobs.put("usr_1/att_1.bin", BytesIO(b"x"), KEY, AT)
    with pytest.raises(BlobsAway):
        await blobs.read("usr_1/att_1.bin", KEY, AT)


@pytest.mark.parametrize("place", ["s3:/x", "gs://bucket", "s3://", "s3://a b", "https://bucket"])
def test_a_place_that_is_none_is_refused(place: str, tmp_path: Path) -> None:
    if "://" in place:
        with pytest.raises(ValueError, match="blobs are in a folder"):
            open_blobs(place, tmp_path)
    else:
        assert isinstance(open_blobs(place, tmp_path), LocalBlobs)
