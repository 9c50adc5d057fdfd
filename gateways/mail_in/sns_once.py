"""Doing what a message asks for once, however often it is posted."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import monotonic

from gateways.single_flight import SingleFlight

_MOST = 50_000


class Once:
    """Remembers, in this process and for a while, the names of what has been done.

    A repeat that comes while the first is still under way waits for it, and tries itself where the first failed. Memory is
    bounded: beyond 50,000 names the oldest are forgotten, and repeats are then told apart further on.
    """

    def __init__(self, window: timedelta, *, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = window.total_seconds()
        self._clock = clock
        self._done: OrderedDict[str, float] = OrderedDict()
        self._one_at_a_time = SingleFlight()

    async def do(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """Runs `act` unless it has succeeded under this name within the window; whatever it raises is raised."""
        async with self._one_at_a_time(name):
            self._forget()
            if name not in self._done:
                await act()
                self._done[name] = self._clock()

    def _forget(self) -> None:
        oldest = self._clock() - self._seconds
        while self._done and (len(self._done) > _MOST or next(iter(self._done.values())) < oldest):
            self._done.popitem(last=False)
