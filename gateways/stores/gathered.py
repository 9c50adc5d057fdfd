"""Writing together what arrives together: one statement and one commit for all that came while the last was under way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Gathered(Generic[Row]):
    """Hands rows to `write`, as many at once as wait. What it raises is raised to everybody whose row was among them."""

    def __init__(self, write: Callable[[list[Row]], Awaitable[object]]) -> None:
        self._write = write
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, row: Row) -> None:
        """Returns once the row is written."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_on())
        await written

    async def _write_on(self) -> None:
        while self._waiting:
            rows, self._waiting = self._waiting, []
            try:
                await self._write([row for row, _ in rows])
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits has to hear it
                for _, written in rows:
                    if not written.done():
                        written.set_exception(error)
            else:
                for _, written in rows:
                    if not written.done():
                        written.set_result(None)
