"""The blob store: what is too large for the log, sealed before it leaves this process (DESIGN 3.3).

A blob is written whole or not at all, and is durable before its name goes into the log. It is sealed in frames of a mebibyte,
each bound to its number and to whether it is the last, so that neither reading nor writing needs the whole in memory and a
truncated or reordered blob can't be opened.

Here is what every store has in common, and the store on a local disk. That one is our own because a blob must survive a loss
of power: obstore's renames a draft without an fsync of it or of its folder. Buckets are obstore's (`blobs_cloud.py`).
"""

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from gateways.stores.sealing import Unsealable, open_bytes, seal_bytes

FRAME_BYTES: Final = 1_048_576
LENGTH_BYTES: Final = 4
#: Folders a process remembers to be there for good.
REMEMBERED: Final = 10_000


class BlobMissing(LookupError):
    """There is no blob of this name: erased, or the store is not the one this log was written with."""


class BlobsAway(OSError):
    """The store can't be reached, or does not let us in: nothing is known of any blob."""


#: `mbx_…/msg_….raw`: whose it is, and what.
NAME: Final = re.compile(r"([a-z]+_[0-9a-z]+)/([a-z]+_[0-9a-z]+\.[a-z]+)")


class Blobs(Protocol):
    """A blob store. Everything raises OSError (`BlobsAway`) where the store can't be used now."""

    async def put(self, name: str, file: BinaryIO, data_key: bytes, at: bytes) -> None:
        """Seals what the file holds from where it stands; the blob is there for good when this returns."""
        ...

    async def read(self, name: str, data_key: bytes, at: bytes) -> bytes:
        """The whole blob, opened. Raises BlobMissing or Unsealable."""
        ...

    async def destroy(self, name: str) -> None:
        """Erases one blob; nothing happens where it is gone already."""
        ...

    async def destroy_all(self, subject: str) -> None:
        """Erases every blob of a subject; nothing happens where they are gone already."""
        ...

    async def older_than(self, kind: str, seconds: float) -> list[str]:
        """The blobs of subjects of this kind (`usr`) that were written so long ago or earlier."""
        ...

    def names(self) -> list[str]:
        """Every blob there is. Blocks: for checks of a whole installation."""
        ...


def parts_of(name: str) -> tuple[str, str]:
    """A blob's subject, and its name within. Raises ValueError."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError("a blob's name is an owner's id, a slash, and an id with an ending")
    return found[1], found[2]


class LocalBlobs:
    """Blobs as files below one folder: all blobs of one subject in a folder of its own, so that they end together.

    A blob is written to a draft, fsynced, renamed, and its folder fsynced.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Folders that this process has seen to be there for good; of one that is lost from here only time is lost.
        self._durable: set[Path] = set()

    def _path(self, name: str) -> Path:
        subject, within = parts_of(name)
        return self._of(subject) / within

    def _of(self, subject: str) -> Path:
        return self._folder / subject[-2:] / subject

    async def put(self, name: str, file: BinaryIO, data_key: bytes, at: bytes) -> None:
        await asyncio.to_thread(self._put, self._path(name), file, data_key, at)

    async def read(self, name: str, data_key: bytes, at: bytes) -> bytes:
        return await asyncio.to_thread(self._read, self._path(name), data_key, at)

    async def destroy(self, name: str) -> None:
        await asyncio.to_thread(self._path(name).unlink, missing_ok=True)

    async def destroy_all(self, subject: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._of(subject), ignore_errors=True)

    async def older_than(self, kind: str, seconds: float) -> list[str]:
        return await asyncio.to_thread(self._older_than, kind, time.time() - seconds)

    def _older_than(self, kind: str, moment: float) -> list[str]:
        found = []
        for path in self._folder.glob(f"??/{kind}_*/*"):
            try:
                is_old = path.stat().st_mtime <= moment
            except FileNotFoundError:
                continue  # destroyed in the meantime
            if is_old and not path.name.startswith("."):
                found.append(f"{path.parent.name}/{path.name}")
            elif is_old:
                path.unlink(missing_ok=True)  # a draft whose writer was killed: nobody will ever name it
        return sorted(found)

    def names(self) -> list[str]:
        found = (path for path in self._folder.glob("??/*/*") if not path.name.startswith("."))
        return sorted(f"{path.parent.name}/{path.name}" for path in found)

    def _put(self, path: Path, file: BinaryIO, data_key: bytes, at: bytes) -> None:
        try:
            path.parent.mkdir()
            is_new = True
        except FileExistsError:
            is_new = path.parent not in self._durable
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = True
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("wb") as out:
                for frame in sealed_frames(file.read, data_key, at):
                    out.write(frame)
                out.flush()
                os.fsync(out.fileno())
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _fsync_folder(path.parent)
        if is_new:
            self._fsync_above(path.parent)

    def _fsync_above(self, folder: Path) -> None:
        """The folders that a new one stands in: only once, for the mails of a mailbox share theirs."""
        for above in (folder.parent, folder.parent.parent):
            _fsync_folder(above)
        if len(self._durable) >= REMEMBERED:
            self._durable.clear()
        self._durable.add(folder)

    @staticmethod
    def _read(path: Path, data_key: bytes, at: bytes) -> bytes:
        try:
            with path.open("rb") as file:
                return b"".join(opened_frames(file, data_key, at))
        except FileNotFoundError as error:
            raise BlobMissing(path.name) from error


def opened_frames(file: BinaryIO, data_key: bytes, at: bytes) -> Iterator[bytes]:
    """What the frames of a blob hold, one after the other. Raises Unsealable."""
    number, frame = 0, _next(file)
    while frame:
        following = _next(file)
        yield open_bytes(data_key, frame, _frame_place(at, number, last=not following))
        number, frame = number + 1, following
    if number == 0:
        raise Unsealable(f"{at.decode()} is empty")


def sealed_frames(read: Callable[[int], bytes], data_key: bytes, at: bytes) -> Iterator[bytes]:
    """A blob, frame by frame as it is written, each with its length before it. Raises what reading raises."""
    number, frame = 0, read(FRAME_BYTES)
    while True:
        following = read(FRAME_BYTES) if frame else b""
        sealed = seal_bytes(data_key, frame, _frame_place(at, number, last=not following))
        yield len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed
        if not following:
            return
        number, frame = number + 1, following


def _frame_place(at: bytes, number: int, *, last: bool) -> bytes:
    return at + b"|%d|%s" % (number, b"last" if last else b"more")


def _next(file: BinaryIO) -> bytes:
    length = file.read(LENGTH_BYTES)
    return file.read(int.from_bytes(length, "big")) if length else b""


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
