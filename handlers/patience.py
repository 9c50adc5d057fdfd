"""How long to wait before something is said once more: while nobody listens, what is said must not pile up."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class Wait:
    seconds: float
    until: float


class Patience:
    """Waits by name, each twice as long as the one before; a name that was not heard of for long begins anew."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._waits: OrderedDict[str, Wait] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waits)

    def waiting(self, name: str) -> bool:
        """Whether it is too early to say it again."""
        wait = self._waits.get(name)
        return wait is not None and wait.until > asyncio.get_running_loop().time()

    def said(self, name: str) -> float:
        """It was said just now: the seconds until it may be said again."""
        now = asyncio.get_running_loop().time()
        before = self._waits.pop(name, None)
        seconds = min(before.seconds * 2, self._longest) if before else self._first
        self._waits[name] = Wait(seconds, now + seconds)
        while next(iter(self._waits.values())).until + self._longest < now:
            self._waits.popitem(last=False)
        return seconds
