"""Mailboxes that their providers want to be left alone for a while: nothing is asked of them until then."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from domain.delivery import Deferred, DeferredCode

#: What is said of a mailbox, and not of one mail.
OF_THE_MAILBOX: Final[frozenset[DeferredCode]] = frozenset({"rate_limited", "mailbox_busy", "daily_quota"})
#: Seconds where the provider does not say for how long; a scale shortens them.
UNSAID: Final[dict[DeferredCode, float]] = {"rate_limited": 10.0, "mailbox_busy": 2.0, "daily_quota": 300.0}
REMEMBERED: Final = 10_000


#: Seconds between those who come back, so that they don't come all at once to hear the same; a scale shortens them. Nobody
#: waits for longer than an hour behind others.
APART_SECONDS: Final = 0.1
LONGEST_BEHIND: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Until when, by the loop's clock, and why."""

    until: float
    code: DeferredCode


class Pauses:
    """What this process has heard. Another one will hear it by itself."""

    def __init__(self, *, scale: float) -> None:
        self._scale = scale
        self._pauses: OrderedDict[str, Pause] = OrderedDict()
        self._last: OrderedDict[str, float] = OrderedDict()

    def heard(self, mailbox: str, answer: object) -> None:
        """Remembers an answer, where it is one that speaks of the mailbox."""
        if not isinstance(answer, Deferred) or answer.code not in OF_THE_MAILBOX:
            return
        seconds = UNSAID[answer.code] * self._scale if answer.retry_after is None else answer.retry_after
        self._pauses[mailbox] = Pause(asyncio.get_running_loop().time() + seconds, answer.code)
        self._pauses.move_to_end(mailbox)
        if len(self._pauses) > REMEMBERED:
            self._pauses.popitem(last=False)

    def answer(self, mailbox: str) -> Deferred | None:
        """What the provider would say, as far as we know; None where it has to be asked."""
        pause = self._pauses.get(mailbox)
        if pause is None:
            return None
        left = pause.until - asyncio.get_running_loop().time()
        if left <= 0:
            del self._pauses[mailbox]
            return None
        return Deferred(pause.code, left + self.behind(mailbox), counted=False)

    def behind(self, queue: str) -> float:
        """Seconds that one more has to wait behind those of a queue who were told to come back before."""
        now, apart = asyncio.get_running_loop().time(), APART_SECONDS * self._scale
        at = max(now, self._last.get(queue, 0.0) + apart)
        at = min(at, now + LONGEST_BEHIND * self._scale)
        self._last[queue] = at
        self._last.move_to_end(queue)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return at - now
