"""Times that are spread: many that were due together do not come back together, and a rule asked twice answers the same."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

MILLISECOND: Final = timedelta(milliseconds=1)


def share_of(name: str) -> float:
    """A number from 0 to 1 that looks random and is always the same for one name."""
    return int.from_bytes(sha256(name.encode()).digest()[:4]) / 2**32


def after(start: datetime, wait: timedelta) -> datetime:
    """So long after the start, rounded up to whole milliseconds: the log knows no shorter ones."""
    return start + -(wait // -MILLISECOND) * MILLISECOND
