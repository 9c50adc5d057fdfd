"""Data keys that a process has opened and remembers for a while, so that not every look asks whoever keeps the wrapping keys.

For minutes only: who takes our right to the wrapping keys away, or destroys a data key in another process, is heard soon.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

#: Data keys a process remembers; others are opened again.
REMEMBERED: Final = 20_000
#: Seconds after which it opens them again, however often they are used.
REMEMBERED_SECONDS: Final = 300.0

Name = TypeVar("Name", bound=Hashable)


class RememberedKeys(Generic[Name]):
    """The data keys opened last, by name."""

    def __init__(self, *, most: int = REMEMBERED, seconds: float = REMEMBERED_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._keys: OrderedDict[Name, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, name: Name) -> bytes | None:
        """None where it is to be opened (again)."""
        until, data_key = self._keys.get(name, (0.0, b""))
        return data_key if time.monotonic() < until else None

    def add(self, name: Name, data_key: bytes) -> None:
        """It has been opened, or made, just now."""
        now = time.monotonic()
        self._keys.pop(name, None)
        self._keys[name] = (now + self._seconds, data_key)
        while len(self._keys) > self._most or next(iter(self._keys.values()))[0] <= now:
            self._keys.popitem(last=False)

    def forget(self, name: Name) -> None:
        """Whether it was known or not."""
        self._keys.pop(name, None)

    def clear(self) -> None:
        """Forgets all of them."""
        self._keys.clear()
