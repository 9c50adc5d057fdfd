"""What handlers keep in Postgres about their own work: claims of timers, positions of effects, and what must be destroyed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from gateways.stores.blobs import Blobs
from gateways.stores.keyring import Keyring
from gateways.stores.postgres import Pool
from gateways.stores.timer_claims import claiming

CLAIM: Final = claiming("timers", timer="t.timer", due="due", columns="t.kind, t.subject, t.key")


class DueTimer(NamedTuple):
    timer: str
    kind: str
    due: datetime
    subject: str
    key: str


class TimerClaims:
    """Asked by any number of processes (`timer_claims.py`)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int) -> Sequence[DueTimer]:
        rows = await self._pool.fetch(CLAIM, limit)
        return [DueTimer(row["timer"], row["kind"], row["due"], row["subject"], row["key"]) for row in rows]


class EffectPositions:
    """How far effects have come, in the table of checkpoints."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def position(self, name: str, topic: str, partition: int) -> int:
        return (
            await self._pool.fetchval(
                "select position from checkpoints where name = $1 and topic = $2 and partition = $3",
                f"effect.{name}",
                topic,
                partition,
            )
            or 0
        )

    async def advance(self, name: str, topic: str, partition: int, position: int) -> None:
        await self._pool.execute(
            "insert into checkpoints (name, topic, partition, position) values ($1, $2, $3, $4) "
            "on conflict (name, topic, partition) do update set position = greatest(checkpoints.position, excluded.position)",
            f"effect.{name}",
            topic,
            partition,
            position,
        )


class Destruction:
    """Destroys what a mailbox's content needs to be read: first its blobs, then its data key."""

    def __init__(self, keyring: Keyring, blobs: Blobs) -> None:
        self._keyring = keyring
        self._blobs = blobs

    async def destroy(self, mailbox: str) -> None:
        await self._blobs.destroy_all(mailbox)
        await self._keyring.destroy(mailbox)

    async def again(self) -> None:
        """What purged mailboxes and deleted users had and a restored backup brought back; users have no blobs."""
        for subject in await self._keyring.revived():
            await self.destroy(subject)
