"""How long a send waits between attempts, how many it has, and for how long an attempt in doubt is looked into.

Times depend on the send's own id, so that a rule asked twice answers the same, and many that failed together do not come
back together.
"""

from datetime import datetime, timedelta
from typing import Final

from domain.spread import after, share_of

#: Attempts that a send has. Waits that a provider asked for are not among them, and end after a day.
ATTEMPTS: Final = 5
LONGEST_WAIT: Final = timedelta(hours=24)
#: The wait after the first attempt; each further one is twice as long.
BASE: Final = timedelta(minutes=1)
#: The longest wait of our own where attempts are not counted.
LONGEST_OWN: Final = timedelta(hours=1)
#: Up to this share longer, and where a provider said for how long, up to this one.
SPREAD: Final = 0.2
SPREAD_ASKED: Final = 0.05
#: The shortest of all waits: a provider that asks for none is not asked again in the same moment.
SHORTEST: Final = timedelta(seconds=1)
#: Waits in a row that a provider asked for, after which it is asked less often than it says: from a second on, twice as long
#: each time, up to this; and where something is wrong with it, up to the other.
PATIENT: Final = 10
LONGEST_FLOOR: Final = timedelta(minutes=1)
LONGEST_FLOOR_AT_FAULT: Final = timedelta(minutes=10)
#: What was dispatched, or is due, and shows no sign of life for so long is dispatched again.
OVERDUE: Final = timedelta(minutes=2)
#: Waits up to this are waited for in a topic, longer ones by a timer alone.
LONGEST_TIER: Final = timedelta(hours=1)

#: When the provider is asked about an attempt in doubt, after the first look at its deadline; and the shortest that all of
#: it takes, however waits are scaled: a provider's own index lags.
LOOKS: Final = tuple(timedelta(seconds=seconds) for seconds in (0, 5, 15, 45, 120, 300, 720, 1500, 2700, 3500))
SHORTEST_DOUBT: Final = timedelta(seconds=45)
#: After the last look, until a timer ends what nobody has reported.
SPARE: Final = timedelta(seconds=30)


def next_try(
    send: str,
    failures: int,
    now: datetime,
    *,
    counted: bool,
    retry_after: float | None,
    scale: float,
    at_fault: bool = False,
) -> datetime:
    """When to try again after so many failures of this kind, counted from 1. What a provider asks for is not scaled.

    `at_fault`: it asked for the wait because something is wrong with it, and not to hold a limit.
    """
    spread = share_of(f"{send}/{failures}")
    if retry_after is not None:
        asked = timedelta(seconds=min(max(retry_after, 0), LONGEST_WAIT.total_seconds()))
        longest = LONGEST_FLOOR_AT_FAULT if at_fault else LONGEST_FLOOR
        floor = min(SHORTEST * 2 ** min(max(0, failures - PATIENT), 16), longest)
        return after(now, max(asked, floor * scale) * (1 + SPREAD_ASKED * spread))
    wait = BASE * 2 ** min(failures - 1, 16)
    return after(now, (wait if counted else min(wait, LONGEST_OWN)) * scale * (1 + SPREAD * spread))


def overdue_at(next_at: datetime, now: datetime, scale: float, *, dispatches: int = 0) -> datetime:
    """When a timer looks after what should have been tried at `next_at`; that very time where only a timer waits for it.

    Later and later with each of `dispatches` in vain: where very many wait for their turn, nothing is wrong with them.
    """
    if next_at - now > LONGEST_TIER * scale:
        return next_at
    return after(next_at, max(min(OVERDUE * 2 ** min(dispatches, 8), LONGEST_OWN) * scale, SHORTEST))


def look_at(number: int, first: datetime, scale: float) -> datetime | None:
    """When look number `number` (from 0) takes place, where the first is at `first`; None where there is no such look."""
    if number >= len(LOOKS):
        return None
    longest = LOOKS[-1]
    factor = max(scale, SHORTEST_DOUBT / longest)
    return after(first, LOOKS[number] * factor)


def doubt_until(first: datetime, scale: float) -> datetime:
    """When a timer ends a doubt that nobody has resolved."""
    last = look_at(len(LOOKS) - 1, first, scale)
    assert last is not None
    return after(last, max(SPARE * scale, SPARE / 3))
