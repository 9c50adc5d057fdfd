"""The log of what was really sent: one line of JSON a mail, appended before anything else knows of it, then synced."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Receipt:
    """One mail that left the fake. `sha256` is that of the bytes as the caller gave them."""

    id: str
    thread_id: str
    draft_id: str | None
    method: str
    user: str
    envelope_from: str
    recipients: tuple[str, ...]
    message_id_before: str | None
    message_id_after: str
    marker: str | None
    headers: dict[str, str]  # those that begin with X-, as they were given
    sha256: str
    size: int
    time: float


def read_receipts(path: Path) -> list[Receipt]:
    """All of them, also of a fake that is dead; a last line that was torn is none."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [Receipt(**(words | {"recipients": tuple(words["recipients"])})) for words in map(json.loads, lines)]


class ReceiptLog:
    """Appends to the file; many wait for one sync."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None

    def append(self, words: dict[str, Any]) -> None:
        """In the file when this returns: killing the fake no longer takes it away."""
        os.write(self._descriptor, json.dumps(words).encode() + b"\n")

    async def synced(self) -> None:
        """On the disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await done

    def forget(self) -> None:
        os.ftruncate(self._descriptor, 0)

    async def _sync(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            await asyncio.to_thread(os.fsync, self._descriptor)
            for one in waiting:
                one.done() or one.set_result(None)
        self._syncing = None
