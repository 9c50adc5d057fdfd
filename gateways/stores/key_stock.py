"""New mailboxes' data keys, stored before anybody asks for one.

A mailbox's key must be in the keyring before the command that creates the mailbox is appended (DESIGN 3.3). Keys in stock are
there already, so a creation waits for no commit of its own; and one statement restocks for many of them.

The stock lives for a minute: ids, which are sorted by when they were made, stay near the truth, and a keyring that an
operator puts back to an earlier state is soon asked again. What was not used by then is destroyed. A process that is killed
leaves its stock behind: rows that no mailbox will ever name.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from gateways.stores.keyring import Keyring
from gateways.stores.postgres import UNREACHABLE
from schemas.ids import new_id

log = logging.getLogger(__name__)

#: Keys in a full stock; half of it gone, it is filled again.
FULL: Final = 32
#: Seconds after which what was not used is destroyed.
KEPT_SECONDS: Final = 60.0


class KeyStock:
    """Ids of mailboxes to be, each with its data key in the keyring."""

    def __init__(self, keyring: Keyring, *, full: int = FULL, kept_seconds: float = KEPT_SECONDS) -> None:
        self._keyring = keyring
        self._full = full
        self._kept_seconds = kept_seconds
        self._stock: deque[tuple[str, bytes]] = deque()
        self._waiting = 0
        self._filling: asyncio.Task[None] | None = None
        self._clearing: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._stock)

    async def take(self) -> tuple[str, bytes]:
        """The id of a new mailbox and its data key, which is there for good. Raises what keeps Postgres from storing one."""
        self._waiting += 1
        try:
            while not self._stock:
                await asyncio.shield(self._fill())
        finally:
            self._waiting -= 1
        taken = self._stock.popleft()
        if len(self._stock) <= self._full // 2:
            self._fill()
        return taken

    async def close(self) -> None:
        """Destroys what was not used."""
        if self._filling is not None:
            await asyncio.wait([self._filling])
        self._clear()
        await asyncio.gather(*self._ending)

    def _fill(self) -> "asyncio.Task[None]":
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._add(self._full + self._waiting - len(self._stock)))
            self._filling.add_done_callback(_heard)
        return self._filling

    async def _add(self, count: int) -> None:
        made = await self._keyring.create_all([new_id("mbx") for _ in range(count)])
        self._stock.extend(made.items())
        if self._clearing is None:
            self._clearing = asyncio.get_running_loop().call_later(self._kept_seconds, self._clear)

    def _clear(self) -> None:
        if self._clearing is not None:
            self._clearing.cancel()
            self._clearing = None
        unused = [mailbox for mailbox, _ in self._stock]
        self._stock.clear()
        if unused:
            task = asyncio.create_task(self._destroy(unused))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _destroy(self, unused: list[str]) -> None:
        try:
            await self._keyring.destroy(*unused)
        except UNREACHABLE as error:
            log.warning("keys that nobody used stay in the keyring", extra={"keys": len(unused), "cause": repr(error)})


def _heard(filling: "asyncio.Task[None]") -> None:
    """Whoever waits for it hears why it failed; where nobody does, the next one who needs a key will try again."""
    if not filling.cancelled():
        filling.exception()
