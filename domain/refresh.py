"""When a token is refreshed, and when it is tried again."""

from datetime import datetime, timedelta
from typing import Final

from domain.spread import after, share_of

#: A token is refreshed this long before it expires, or a third of its life, whichever is less.
AHEAD: Final = timedelta(minutes=5)
SHARE: Final = 3
#: Up to this share of that time earlier: connections made in one minute are not all due in one.
SPREAD: Final = 0.2
#: The first wait after a failure; each further one is twice as long.
FIRST_WAIT: Final = timedelta(seconds=10)
LONGEST_WAIT: Final = timedelta(minutes=10)
#: While our client itself is refused nobody's token can be refreshed: an operator has to see to it.
CLIENT_WAIT: Final = timedelta(minutes=2)
#: No provider's word makes us wait for longer.
LONGEST_ASKED: Final = timedelta(hours=1)
#: A new token is left alone for so long, whatever its provider says of its end: one that gives tokens which have expired
#: on arrival is not asked for the next at once, for ever.
LEFT_ALONE: Final = timedelta(seconds=1)


def refresh_at(connection: str, version: int, issued_at: datetime, expires_at: datetime | None) -> datetime | None:
    """When this token is due: the same answer for the same token, so that a rebuild finds it again. None: never."""
    if expires_at is None:
        return None
    ahead = min(AHEAD, max(expires_at - issued_at, timedelta(0)) / SHARE)
    due = expires_at - ahead * (1 + SPREAD * share_of(f"{connection}/{version}"))
    return max(issued_at + LEFT_ALONE, due.replace(microsecond=due.microsecond // 1000 * 1000))


def next_try(
    connection: str, failures: int, now: datetime, *, client_broken: bool, retry_after: float | None, scale: float
) -> datetime:
    """When to try again after this many failures in a row. What the provider asks for is not scaled."""
    wait = CLIENT_WAIT if client_broken else min(FIRST_WAIT * 2 ** min(failures - 1, 16), LONGEST_WAIT)
    ours = wait * scale * (1 + SPREAD * share_of(f"{connection}/{failures}"))
    asked = timedelta(seconds=min(max(retry_after or 0, 0), LONGEST_ASKED.total_seconds()))
    return after(now, max(ours, asked))
