"""Resume tokens: where a reader of a stream is, as text.

A token is a vector of `topic-partition:next offset`, comma-separated: `mailbox.events-3:1841`. It is the same text as
`X-Log-Position`, so whoever lists and then streams from the list's position sees each thing once. Where all partitions of a
topic are meant, their offsets stand behind its name, by number: `send.events:17.4.120`. Callers treat it as opaque.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from projections.feed import KEPT_DAYS

#: A partition of a topic, or all of them.
PART: Final = re.compile(r"([a-z][a-z.]{0,60})-(\d{1,6}):(\d{1,18})")
WHOLE: Final = re.compile(r"([a-z][a-z.]{0,60}):(\d{1,18}(?:\.\d{1,18})*)")
#: Characters of a token that are looked at: more than a vector over hundreds of partitions has.
LONGEST: Final = 8000

#: A topic and a partition of it.
Place = tuple[str, int]
Pool = asyncpg.Pool


def token(topic: str, partition: int, offset: int) -> str:
    """`mailbox.events-3:1841`: everything before offset 1841 has been seen."""
    return f"{topic}-{partition}:{offset}"


def token_of_all(topic: str, offsets: Sequence[int]) -> str:
    """`send.events:17.4.120`: the same of every partition of a topic, by number."""
    return f"{topic}:{'.'.join(map(str, offsets))}"


def places_in(text: str) -> Mapping[Place, int]:
    """The next offset of each place that this token names; none where it is no token."""
    places: dict[Place, int] = {}
    if len(text) > LONGEST:
        return {}
    for part in text.split(","):
        if found := PART.fullmatch(part.strip()):
            places.setdefault((found[1], int(found[2])), int(found[3]))
        elif found := WHOLE.fullmatch(part.strip()):
            for partition, offset in enumerate(found[2].split(".")):
                places.setdefault((found[1], partition), int(offset))
        else:
            return {}
    return places


def offset_in(text: str, topic: str, partition: int) -> int | None:
    """The next offset that this token names for the partition; None where it is no token, or one of another log."""
    return places_in(text).get((topic, partition))


async def is_too_old(pool: "Pool[Any]", topic: str, partition: int, offset: int) -> bool:
    """Whether what stands at this offset may no longer be kept: the next row there is is older than what is promised.

    Pruning leaves, in each partition, the newest of the rows that are too old (projections/feed.py).
    """
    at = await pool.fetchval(
        "select at from feed where topic = $1 and partition = $2 and position >= $3 order by position limit 1",
        topic,
        partition,
        offset,
    )
    return at is not None and at < datetime.now(UTC) - timedelta(days=KEPT_DAYS)
