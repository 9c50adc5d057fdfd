"""The ends of attachments: those that no send named in time, and the bytes of those that are over.

A blob is written before the command that names it. Where that command never came, nobody will ever name the blob: it is swept
once it is so old that the command would be in the log, and every command that stands there has been decided.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from domain.attachments import AttachmentDeleted, DeleteAttachment
from domain.users import UserDeleted
from handlers.command_log import AppendsCommands
from handlers.effector import Effect
from schemas import commands, events, topics
from schemas.envelope import Record

log = logging.getLogger(__name__)

NAME: Final = "discard-attachments"
#: Attachments claimed at once.
CLAIMS: Final = 200
#: Seconds to the next look where nothing is due.
LOOK_SECONDS: Final = 1.0
#: Seconds between sweeps, and after which a command that was to name a blob is in the log, or comes too late to count.
SWEEP_SECONDS: Final = 3600.0
OLD_SECONDS: Final = 86_400.0
#: What the blobs of attachments and of sends are called, below their user.
KINDS: Final = ("/att_", "/snd_")


class KeepsFiles(Protocol):
    """Everything raises where the store can't be used now."""

    async def destroy(self, name: str) -> None:
        """Erases a blob; nothing happens where it is gone already."""
        ...

    async def destroy_all(self, subject: str) -> None:
        """Erases every blob of a subject."""
        ...

    async def older_than(self, kind: str, seconds: float) -> list[str]:
        """The blobs of subjects of this kind that were written so long ago or earlier."""
        ...


class Due(Protocol):
    @property
    def attachment(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def due(self) -> datetime: ...


class KnowsAttachments(Protocol):
    async def claim(self, limit: int) -> Sequence[Due]:
        """Attachments whose time is over and that nobody has claimed, claimed for us."""
        ...

    async def may_be_named(self, user: str, attachment: str) -> bool:
        """Whether a send names it, or one may that was asked for and is not known to be decided."""
        ...

    async def staleness(self) -> float | None:
        """All that was asked for until so many seconds ago is known with what follows; None where no such moment is."""
        ...

    async def orphans(self, blobs: Sequence[str], *, older_than: float) -> list[str]:
        """Those of these blobs that nothing names: no event ever did, or what did was deleted so many seconds ago or more."""
        ...


def effect(blobs: KeepsFiles, known: KnowsAttachments) -> Effect:
    """Destroys the bytes of what was deleted, and all of a user who was.

    Who deletes an attachment as soon as a send is promised that names it may be quicker than we are in noting that, or even
    in deciding on the send. What may be named is left to the sweep.
    """

    async def act(event: AttachmentDeleted | UserDeleted, record: Record) -> None:
        del record
        if isinstance(event, UserDeleted):
            await blobs.destroy_all(event.user)
        elif event.blob is not None and not await known.may_be_named(event.user, event.attachment):
            await blobs.destroy(event.blob)

    wants = (AttachmentDeleted, UserDeleted)
    # In lanes of their own: one that is asked about for a while holds up no other of its account.
    return Effect(NAME, topics.ACCOUNT_EVENTS.name, events.ACCOUNT, wants, act, lane=_subject)


def _subject(record: Record) -> str:
    return record.header("ce_subject")


class Ending:
    """Says of attachments that their time is over, and sweeps blobs that are nobody's."""

    def __init__(
        self, known: KnowsAttachments, blobs: KeepsFiles, log: AppendsCommands, *, old_seconds: float = OLD_SECONDS
    ) -> None:
        self._known = known
        self._blobs = blobs
        self._log = log
        self._old_seconds = old_seconds

    async def run(self) -> None:
        """Until cancelled; what can't be reached is waited for."""
        loop, sweep_at = asyncio.get_running_loop(), 0.0
        while True:
            ended = 0
            try:
                ended = await self.end_due()
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + SWEEP_SECONDS
                    await self.sweep()
            except Exception:
                log.exception("ending attachments waits")
            if ended < CLAIMS:
                await asyncio.sleep(LOOK_SECONDS)

    async def end_due(self) -> int:
        """Once: how many were due. A command's id derives from attachment and time, and its decider compares times."""
        due = await self._known.claim(CLAIMS)
        await asyncio.gather(*[self._end(each) for each in due])
        return len(due)

    async def _end(self, due: Due) -> None:
        await self._log.command(
            topics.ACCOUNT_COMMANDS.name,
            due.account,
            DeleteAttachment(due.account, due.user, due.attachment, "unused"),
            vocabulary=commands.ACCOUNT,
            subject=due.attachment,
            command_id=f"{due.attachment}@{due.due.timestamp():.3f}",
        )

    async def sweep(self) -> int:
        """Once: how many blobs were nobody's."""
        stale = await self._known.staleness()
        if stale is None:
            return 0
        seconds = self._old_seconds + stale
        old = [name for name in await self._blobs.older_than("usr", seconds) if any(kind in name for kind in KINDS)]
        orphans = await self._known.orphans(old, older_than=seconds)
        for blob in orphans:
            await self._blobs.destroy(blob)
        if orphans:
            log.warning("blobs that nothing names were destroyed", extra={"count": len(orphans)})
        return len(orphans)
