"""Whether a read model holds everything that stands in its topic."""

from gateways.log.event_log import EventLog
from gateways.stores.postgres import Pool


class CaughtUp:
    """Asks the log where it ends, and only then the read model how far it is."""

    def __init__(self, log: EventLog, pool: Pool, *, projection: str, topic: str) -> None:
        self._log = log
        self._pool = pool
        self._projection = projection
        self._topic = topic

    async def caught_up(self) -> bool:
        """Raises what the log or Postgres raises where it can't be reached."""
        ends = {
            partition: (await self._log.bounds(self._topic, partition))[1]
            for partition in await self._log.partitions(self._topic)
        }
        rows = await self._pool.fetch(
            "select partition, position from checkpoints where name = $1 and topic = $2", self._projection, self._topic
        )
        positions = {row["partition"]: row["position"] for row in rows}
        return all(positions.get(partition, 0) >= end for partition, end in ends.items())
