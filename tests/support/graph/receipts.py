"""In the child: the log of what really went out. It outlives us: a line is on the disk before anybody hears of the mail."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any


class Receipts:
    """One JSON line for each mail, appended and synced; those that come together share one sync."""

    def __init__(self, file: Path, *, sync: bool) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.sync = sync
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def append(self, mail: dict[str, Any]) -> None:
        line = json.dumps(mail).encode() + b"\n"
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._put, b"".join(line for line, _ in waiting))
            except OSError as error:
                for _, done in waiting:
                    done.set_exception(error)
            else:
                for _, done in waiting:
                    done.set_result(None)

    def _put(self, lines: bytes) -> None:
        while lines:
            lines = lines[os.write(self._file, lines) :]
        if self.sync:
            os.fsync(self._file)

    async def forget(self) -> None:
        """All of them, and those that are being written."""
        if self._writing is not None:
            await self._writing
        os.ftruncate(self._file, 0)
