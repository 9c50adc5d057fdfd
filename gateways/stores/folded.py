"""How far projections have come, as Postgres announces it: one listening connection for each gateway process."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from gateways.stores.postgres import ANSWER_SECONDS, UNREACHABLE, Pool
from schemas.topics import FOLDED_CHANNEL

log = logging.getLogger(__name__)

Place = tuple[str, str, int]
#: Seconds between looks at the checkpoints themselves, in case an announcement was missed.
LOOK_SECONDS: Final = 1.0


class FoldedPositions:
    """The next offset each projection will fold, by (projection, topic, partition)."""

    def __init__(self, url: str, pool: Pool) -> None:
        self._url = url
        self._pool = pool
        self.positions: dict[Place, int] = {}
        self._waiting: dict[Place, list[tuple[int, asyncio.Future[None]]]] = {}
        self._listeners: list[Callable[[Place, int], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="folded positions")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def listen(self, tells: Callable[[Place, int], None]) -> Callable[[], None]:
        """Has every advance told; call what is returned to end it."""
        self._listeners.append(tells)
        return lambda: self._listeners.remove(tells)

    async def reached(self, projection: str, topic: str, partition: int, position: int, *, seconds: float) -> None:
        """Returns once the projection has folded what stands before `position`; raises TimeoutError."""
        place = (projection, topic, partition)
        if self.positions.get(place, 0) >= position:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (position, future)
        self._waiting.setdefault(place, []).append(waiting)
        try:
            async with asyncio.timeout(seconds):
                await future
        finally:
            if waiting in self._waiting.get(place, []):
                self._waiting[place].remove(waiting)

    async def _follow(self) -> None:
        while True:
            try:
                # An address that goes silent ends no connection: without a time-out one would listen to it for ever.
                connection = await asyncpg.connect(self._url, timeout=5, command_timeout=ANSWER_SECONDS)
                try:
                    await connection.add_listener(FOLDED_CHANNEL, self._heard)
                    while not connection.is_closed():
                        await self._look(connection)
                        await asyncio.sleep(LOOK_SECONDS)
                finally:
                    await connection.close(timeout=1)
            except UNREACHABLE as error:
                log.warning("listening again", extra={"cause": repr(error)})
                await asyncio.sleep(0.3)

    async def _look(self, connection: "asyncpg.Connection[Any]") -> None:
        for name, topic, partition, position in await connection.fetch(
            "select name, topic, partition, position from kept.checkpoints"
        ):
            self._advance((name, topic, partition), position)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        topic, partition, position, names = str(payload).split(" ")
        for name in names.split(","):
            self._advance((name, topic, int(partition)), int(position))

    def _advance(self, place: Place, position: int) -> None:
        if position <= self.positions.get(place, -1):
            return
        self.positions[place] = position
        still = []
        for wanted, future in self._waiting.get(place, []):
            if wanted > position:
                still.append((wanted, future))
            elif not future.done():
                future.set_result(None)
        if place in self._waiting:
            self._waiting[place] = still
        for tells in list(self._listeners):
            tells(place, position)
