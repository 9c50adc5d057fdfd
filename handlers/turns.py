"""Whose turn it is at the decider of sends: while very many mails are being asked for, attempts are begun one by one.

Whoever asks for a mail waits for its decision; nobody waits for an attempt in that way, and the mail is safe. Without this a
burst of mails is taken on more slowly, since the attempts at the first of them are asked for in front of the last. Where
beginning one is quick all the same, there is nothing to share out.
"""

import asyncio
from contextlib import suppress
from typing import Final

#: Seconds after a mail was asked for in which attempts have turns.
BUSY_SECONDS: Final = 0.1
#: Seconds that beginning one takes where too much is asked of the decider or of the machine, and how many are being begun.
SLOW_SECONDS: Final = 0.05
MANY: Final = 8
#: What is left of that with each that is begun.
FORGOTTEN: Final = 0.95
#: Seconds after which an attempt is begun in any case, however long mails go on being asked for.
PATIENCE_SECONDS: Final = 5.0


class Turns:
    """Those of one process."""

    def __init__(self) -> None:
        self._room = asyncio.Lock()
        self._beginning = 0
        self._asked_at = -BUSY_SECONDS
        self._took = 0.0

    def asked(self) -> None:
        """A mail was asked for."""
        self._asked_at = asyncio.get_running_loop().time()

    async def begin(self) -> "Turn":
        """Waits for a turn, where one has to be waited for; say when it has ended."""
        mine = False
        if self._crowded and asyncio.get_running_loop().time() - self._asked_at <= BUSY_SECONDS:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    mine = await self._room.acquire()
        self._beginning += 1
        return Turn(self, mine=mine)

    @property
    def _crowded(self) -> bool:
        return self._took > SLOW_SECONDS or self._beginning >= MANY

    def ended(self, seconds: float, *, had_it: bool) -> None:
        """One was begun, in so many seconds. A quick one between slow ones says little."""
        self._beginning -= 1
        self._took = max(seconds, self._took * FORGOTTEN)
        if had_it:
            self._room.release()


class Turn:
    """One attempt's. It ends once, however often that is said."""

    def __init__(self, turns: Turns, *, mine: bool) -> None:
        self._turns: Turns | None = turns
        self._mine = mine
        self._began = asyncio.get_running_loop().time()

    def end(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.ended(asyncio.get_running_loop().time() - self._began, had_it=self._mine)
