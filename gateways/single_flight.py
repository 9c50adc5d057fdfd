"""One at a time for each name: whoever asks for the same thing at the same moment waits for the first to finish."""

import asyncio
from weakref import WeakValueDictionary


class SingleFlight:
    """Hands out a lock for a name; a lock lives only as long as somebody holds or awaits it.

    A waiter looks again at what the first one left behind. Where the first was cancelled or failed, the next one tries.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __call__(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
