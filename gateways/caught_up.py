"""Whether a read model holds what follows from everything that was asked for.

A command that waits in the log was acknowledged, however long ago: until it has been decided nobody knows what it will name.
So it is not enough that the tables hold every event.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from gateways.decided_inputs import decided_inputs
from gateways.log.event_log import EventLog
from gateways.stores.postgres import Pool
from schemas.topics import DECIDED_IN

#: Seconds between two looks at what is waited for.
LOOK_SECONDS: Final = 0.1


@dataclass(slots=True)
class Reading:
    """Where the inputs ended at one moment, by partition and topic; and where the events did once all that was decided."""

    at: float
    asked: dict[int, dict[str, int]]
    decided: dict[int, int] | None = None


class CaughtUp:
    """Asks the inputs where they end, only then how far they have been decided, and only then the read model how far it is.

    Everything raises what the log or Postgres raises where it can't be reached.
    """

    def __init__(self, log: EventLog, pool: Pool, *, projection: str, topic: str) -> None:
        self._log = log
        self._pool = pool
        self._projection = projection
        self._topic = topic
        self._inputs = [name for name, truth in DECIDED_IN.items() if truth == topic]
        self._earlier: Reading | None = None
        #: Who waits asks for all who do. When it last held all that had been asked for, and until when nobody waits again.
        self._waiting = asyncio.Lock()
        self._held_at = self._in_vain_until = float("-inf")

    async def staleness(self) -> float | None:
        """The read model holds what follows from everything that was asked for until so many seconds ago.

        None where no such moment is known. Where there is always something under way, a moment of an earlier call is.
        """
        now = await self._read()
        for reading in (now, self._earlier):
            if reading is not None and await self._holds(reading):
                self._earlier = None if reading is now else now
                return asyncio.get_running_loop().time() - reading.at
        self._earlier = self._earlier or now
        return None

    async def catches_up(self, *, seconds: float) -> bool:
        """Whether it holds, within so many seconds, what follows from everything that was asked for until now.

        After a wait in vain nobody waits for as long again: the first look is the only one.
        """
        asked_at = asyncio.get_running_loop().time()
        async with self._waiting:
            if self._held_at >= asked_at:
                return True
            now = await self._read()
            patient = asked_at > self._in_vain_until
            while not await self._holds(now):
                looked_at = asyncio.get_running_loop().time()
                if not patient or looked_at >= asked_at + seconds:
                    self._in_vain_until = looked_at + seconds if patient else self._in_vain_until
                    return False
                await asyncio.sleep(LOOK_SECONDS)
            self._held_at = now.at
            return True

    async def _read(self) -> Reading:
        at = asyncio.get_running_loop().time()
        partitions = await self._log.partitions(self._topic)
        return Reading(
            at,
            {
                partition: {topic: (await self._log.bounds(topic, partition))[1] for topic in self._inputs}
                for partition in partitions
            },
        )

    async def _holds(self, reading: Reading) -> bool:
        reading.decided = reading.decided or await self._decided(reading)
        if reading.decided is None:
            return False
        rows = await self._pool.fetch(
            "select partition, position from checkpoints where name = $1 and topic = $2", self._projection, self._topic
        )
        positions = {row["partition"]: row["position"] for row in rows}
        return all(positions.get(partition, 0) >= end for partition, end in reading.decided.items())

    async def _decided(self, reading: Reading) -> dict[int, int] | None:
        """Where the events end now that all of it has been decided; None where something has not."""
        ends = {}
        for partition, asked in reading.asked.items():
            inputs, ends[partition] = await decided_inputs(self._log, self._pool, self._topic, partition)
            if any(inputs.get(topic, 0) < end for topic, end in asked.items()):
                return None
        return ends
