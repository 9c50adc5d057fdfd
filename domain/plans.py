"""Plans: how many mailboxes and messages may live, and for how long."""

from dataclasses import dataclass
from typing import Final

#: No lifetime, extensions included, is longer than this; how long raw mail is kept is computed from it.
LONGEST_LIFETIME_MINUTES: Final = 30 * 24 * 60

#: No count of a plan is larger: readers keep them as 32-bit numbers.
LARGEST_COUNT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan allows. Times in minutes; counts are of what is live, not of what was ever there."""

    default_ttl_minutes: int
    longest_ttl_minutes: int
    live_mailboxes: int
    live_messages: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A dated copy of a plan, as it travels in a command: `position` is where it was defined in `account.events`.

    `position` is None for the plans every installation begins with.
    """

    name: str
    limits: Limits
    position: int | None = None


ANONYMOUS_PLAN: Final = "free"
BUILT_IN: Final = {
    "free": Plan("free", Limits(default_ttl_minutes=60, longest_ttl_minutes=60, live_mailboxes=1, live_messages=10)),
    "pro": Plan(
        "pro", Limits(default_ttl_minutes=1440, longest_ttl_minutes=1440, live_mailboxes=20, live_messages=500)
    ),
}


def granted_minutes(asked: int | None, limits: Limits) -> int:
    """The lifetime that is given: what was asked for, or the default, silently capped at the longest."""
    return min(asked or limits.default_ttl_minutes, limits.longest_ttl_minutes, LONGEST_LIFETIME_MINUTES)
