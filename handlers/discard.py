"""Throws away what was kept of mail that was then rejected: a full inbox must not fill the blob store.

A blob is written before the record that names it, and so before anybody knows whether the mail has room. Each acceptance has
blobs of its own, so none that is thrown away here is anybody else's.
"""

from typing import Final, Protocol

from domain.mailbox_events import MessageRejected
from handlers.effector import Effect
from schemas import events, topics
from schemas.envelope import Record

NAME: Final = "discard"
#: Bytes of a mail below which nothing of it can be in the blob store.
LEAST_BYTES: Final = 65_536
#: What a mail may have there: as it came, and what parsing found in it.
ENDINGS: Final = ("raw", "content")


class ThrowsAway(Protocol):
    async def destroy(self, name: str) -> None:
        """Erases a blob; nothing happens where it is gone already."""
        ...


def effect(blobs: ThrowsAway) -> Effect:
    async def act(event: MessageRejected, record: Record) -> None:
        del record
        if event.size >= LEAST_BYTES:
            for ending in ENDINGS:
                await blobs.destroy(f"{event.mailbox}/{event.message}.{ending}")

    return Effect(NAME, topics.MAILBOX_EVENTS.name, events.MAILBOX, MessageRejected, act)
