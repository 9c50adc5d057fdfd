"""What handlers keep in Postgres about their own work: claims of timers, positions of effects, and what must be destroyed."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from gateways.stores.blobs import Blobs
from gateways.stores.keyring import Keyring
from gateways.stores.postgres import Pool

CLAIM = """
with due as (
    select t.timer, t.kind, t.due, t.subject, t.key from timers t
    where t.due <= now() and not exists (
        select from timer_claims c where c.timer = t.timer and c.due = t.due and c.claimed_until > now())
    order by t.due limit $1 for update of t skip locked),
claimed as (
    insert into timer_claims (timer, due, claimed_until) select timer, due, now() + interval '5 seconds' from due
    on conflict (timer, due) do update set claims = timer_claims.claims + 1,
        claimed_until = now() + least(interval '5 seconds' * 2 ^ timer_claims.claims, interval '10 minutes')
        where timer_claims.claimed_until <= now()
    returning timer, due),
old as (delete from timer_claims where claimed_until < now() - interval '1 hour')
select due.* from due join claimed using (timer, due)
"""


class DueTimer(NamedTuple):
    timer: str
    kind: str
    due: datetime
    subject: str
    key: str


class TimerClaims:
    """A first claim lasts five seconds: by then the timer's command has been decided, or it is asked for again.

    Further claims last longer, up to ten minutes: while nobody decides, commands must not pile up.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int) -> Sequence[DueTimer]:
        return [DueTimer(*row) for row in await self._pool.fetch(CLAIM, limit)]


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
