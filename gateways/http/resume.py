"""Resume tokens: where a reader of a stream is, as text.

A token is a vector of `topic-partition:next offset`, comma-separated: `mailbox.events-3:1841`. It is the same text as
`X-Log-Position`, so whoever lists and then streams from the list's position sees each thing once. Callers treat it as opaque.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from projections.feed import KEPT_DAYS

PART: Final = re.compile(r"([a-z][a-z.]{0,60})-(\d{1,6}):(\d{1,18})")
#: Characters of a token that are looked at: more than any vector of ours has.
LONGEST: Final = 2000

Pool = asyncpg.Pool


def token(topic: str, partition: int, offset: int) -> str:
    """`mailbox.events-3:1841`: everything before offset 1841 has been seen."""
    return f"{topic}-{partition}:{offset}"


def offset_in(text: str, topic: str, partition: int) -> int | None:
    """The next offset that this token names for the partition; None where it is no token, or one of another log."""
    if len(text) > LONGEST:
        return None
    for part in text.split(","):
        found = PART.fullmatch(part.strip())
        if found is None:
            return None
        if (found[1], int(found[2])) == (topic, partition):
            return int(found[3])
    return None


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
