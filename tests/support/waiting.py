"""Waiting for what must come true, instead of for a time."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.mail_history import MailLog

TABLES = ("mailboxes", "messages", "timers", "feed")


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Returns once it holds; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def folded(mail: MailLog, but: dict[int, int] | None = None) -> None:
    """Returns once every projection is at the end of every partition, `but` for those that end elsewhere."""
    ends = await mail.ends() | (but or {})

    async def at_end() -> bool:
        return all([await mail.checkpoints(name) == ends for name in TABLES])

    await until(at_end)
