"""Whose turn it is at the decider of sends: while mails are being asked for, few attempts are begun at a time.

Whoever asks for a mail waits for its decision; nobody waits for an attempt in that way, and the mail is safe. Without this a
burst of mails is taken on half as fast, since the attempts at the first of them are asked for in front of the last. Where
beginning one is quick all the same, there is nothing to share out.
"""

import asyncio
from typing import Final

#: Attempts that are begun at a time, and seconds after a mail was asked for in which that holds.
FEW: Final = 2
BUSY_SECONDS: Final = 0.1
#: Seconds that beginning one takes where too much is asked of the decider or of the machine.
SLOW_SECONDS: Final = 0.05
#: What is left of that with each that is begun.
FORGOTTEN: Final = 0.95
#: Seconds after which an attempt is begun in any case, however long mails go on being asked for.
PATIENCE_SECONDS: Final = 5.0


class Turns:
    """Those of one process."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(FEW)
        self._asked_at = -BUSY_SECONDS
        self._took = 0.0

    def asked(self) -> None:
        """A mail was asked for."""
        self._asked_at = asyncio.get_running_loop().time()

    async def begin(self) -> "Turn":
        """Waits for a turn, where one has to be waited for; say when it has ended."""
        now = asyncio.get_running_loop().time()
        if self._took < SLOW_SECONDS or now - self._asked_at > BUSY_SECONDS:
            return Turn(self, None)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            return Turn(self, None)
        return Turn(self, self._room)

    def took(self, seconds: float) -> None:
        """How long it took to begin one. A quick one between slow ones says little."""
        self._took = max(seconds, self._took * FORGOTTEN)


class Turn:
    """One attempt's. It ends once, however often that is said."""

    def __init__(self, turns: Turns, room: asyncio.Semaphore | None) -> None:
        self._turns: Turns | None = turns
        self._room = room
        self._began = asyncio.get_running_loop().time()

    def end(self) -> None:
        turns, self._turns = self._turns, None
        if turns is None:
            return
        turns.took(asyncio.get_running_loop().time() - self._began)
        if self._room is not None:
            self._room.release()
