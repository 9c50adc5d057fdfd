"""What the feeds hold, as streams read it: for those who come back, and for what the log alone does not tell."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from gateways.http.frames import Frames, Told
from gateways.http.resume import Place, is_too_old
from gateways.http.user_feeds import USER_FEEDS
from projections import feed, user_feed
from schemas.topics import MAILBOX_EVENTS

Pool = asyncpg.Pool
TOPIC: Final = MAILBOX_EVENTS.name
#: Rows read at once.
PAGE: Final = 200


class FeedRows:
    """Everything raises what asyncpg raises where Postgres can't be reached."""

    def __init__(self, pool: "Pool[Any]", frames: Frames) -> None:
        self._pool = pool
        self._frames = frames

    async def are_kept(self, at: Mapping[Place, int]) -> bool:
        """Whether all that stands at these offsets or later is kept."""
        for topic, since in _by_topic(at).items():
            if topic == TOPIC:
                ((partition, offset),) = since.items()
                lost = await is_too_old(self._pool, TOPIC, partition, offset)
            else:
                lost = await user_feed.is_too_old(self._pool, USER_FEEDS[topic].table, since)
            if lost:
                return False
        return True

    async def first_of_mailbox(self, mailbox: str) -> int | None:
        """The first position there is of a mailbox."""
        rows = await feed.of_mailbox(self._pool, mailbox, since=0, limit=1)
        return rows[0].position if rows else None

    async def first_of_account(self, owner: str, places: Sequence[Place]) -> dict[Place, int]:
        """The first positions there are of an account, by place; none where nothing is."""
        found: dict[Place, int] = {}
        for topic, partitions in _by_topic(dict.fromkeys(places, 0)).items():
            if topic == TOPIC:
                (partition,) = partitions
                for row in await feed.of_owner(self._pool, owner, TOPIC, partition, since=0, limit=1):
                    found[TOPIC, partition] = row.position
            else:
                oldest = await user_feed.oldest(self._pool, USER_FEEDS[topic].table, owner)
                found |= {(topic, partition): position for partition, position in oldest.items()}
        return found

    async def of_mailbox(self, mailbox: str, since: int, *, opened: bool) -> tuple[list[Told], bool]:
        """What there is from this position on, ready to be told, and whether there may be more."""
        rows = await feed.of_mailbox(self._pool, mailbox, since=since, limit=PAGE)
        told = [self._frames.of(row) for row in rows]
        if opened:
            await self._frames.open(told)
        return told, len(rows) == PAGE

    async def of_account(self, owner: str, topic: str, since: Mapping[int, int]) -> tuple[list[Told], bool]:
        """The same of all that happens to an account in these partitions of a topic; one partition after the other."""
        rows: Sequence[feed.Entry | user_feed.UserEntry]
        if topic == TOPIC:
            ((partition, offset),) = since.items()
            rows = await feed.of_owner(self._pool, owner, TOPIC, partition, since=offset, limit=PAGE)
        else:
            table = USER_FEEDS[topic].table
            rows = await user_feed.of_owner(self._pool, table, topic, owner, since=since, limit=PAGE)
        return [self._frames.of(row) for row in rows], len(rows) == PAGE

    async def at_positions(self, place: Place, positions: Sequence[int]) -> list[user_feed.UserEntry]:
        """What there is to tell of these positions of a topic that is keyed by user."""
        topic, partition = place
        return await user_feed.at_positions(self._pool, USER_FEEDS[topic].table, topic, partition, positions)


def _by_topic(at: Mapping[Place, int]) -> dict[str, dict[int, int]]:
    """Partition → offset, for each topic."""
    found: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in at.items():
        found.setdefault(topic, {})[partition] = offset
    return found
