"""All open streams of a process: how many there may be, the one timer that visits them, and what ends them."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from domain.account import ApiKeyRevoked
from gateways.http.endings import COMPLETE, REVOKED, inbox_ended, restarting
from gateways.http.fanout import Fanout
from gateways.http.frames import Frames
from gateways.http.sse import RETRY_MS, AllSse
from gateways.http.streams import Stream
from gateways.log.tail import Tail
from gateways.stores.postgres import UNREACHABLE, Pool
from projections import mailboxes
from schemas import events
from schemas.envelope import Record
from schemas.topics import ACCOUNT_EVENTS

log = logging.getLogger(__name__)

#: The timer goes round these; each stream belongs to one, so that signs of life are spread evenly.
SLOTS: Final = 10
#: Seconds after a mailbox's time in which its end is expected as an event.
GRACE_SECONDS: Final = 1.5
#: Rounds of the timer after which what was opened is forgotten.
FORGET_AFTER: Final = 8
#: Clients a second who are asked to come back after a restart.
RETURNING: Final = 200
CLOSE_SECONDS: Final = 3.0
REVOCATION: Final = events.ACCOUNT.types[ApiKeyRevoked]


class OpenStreams:
    """`turn_seconds` is the time between two visits of one stream."""

    def __init__(self, fanout: Fanout, frames: Frames, tail: Tail, pool: Pool, *, turn_seconds: float) -> None:
        self._fanout = fanout
        self._frames = frames
        self._tail = tail
        self._pool = pool
        self._turn_seconds = turn_seconds
        self._slots: list[set[Stream]] = [set() for _ in range(SLOTS)]
        self._opened = 0
        self._of_owner: dict[str, int] = {}
        self._timer: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] = lambda: None
        self.revoked: set[str] = set()

    def start(self) -> None:
        self._unlisten = self._tail.listen(self._heard)
        self._timer = asyncio.create_task(self._go_round(), name="open streams")

    async def stop(self) -> None:
        self._unlisten()
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots)

    def of_owner(self, owner: str) -> int:
        return self._of_owner.get(owner, 0)

    @contextmanager
    def holding(self, stream: Stream) -> Iterator[None]:
        """Keeps the stream among the open ones, and has it told what it watches."""
        slot = self._slots[self._opened % SLOTS]
        self._opened += 1
        slot.add(stream)
        self._of_owner[stream.owner] = self.of_owner(stream.owner) + 1
        self._fanout.watch(stream)
        self._fanout.measures.opened(stream.wire.kind)
        try:
            yield
        finally:
            stream.leave()
            self._fanout.unwatch(stream)
            slot.discard(stream)
            self._fanout.measures.ended(stream.wire.kind, stream.cause)
            self._of_owner[stream.owner] -= 1
            if not self._of_owner[stream.owner]:
                del self._of_owner[stream.owner]

    async def close(self) -> None:
        """Ends every stream; clients are asked to come back spread over time."""
        streams = self._all()
        spread_ms = max(4_000, len(streams) * 1000 // RETURNING)
        for stream in streams:
            stream.end(restarting(RETRY_MS + random.randrange(spread_ms)))  # noqa: S311 - spreads load, hides nothing
        writers = [stream.writer for stream in streams if stream.writer is not None]
        if writers:
            _, late = await asyncio.wait(writers, timeout=CLOSE_SECONDS)
            for stream in self._all() if late else []:
                stream.abort()

    def _all(self) -> list[Stream]:
        return [stream for slot in self._slots for stream in slot]

    # ── what the clock and the log bring about ────────────────────────────────────────────────────────────────────────

    async def _go_round(self) -> None:
        turns = 0
        while True:
            await asyncio.sleep(self._turn_seconds / SLOTS)
            due = list(self._slots[turns % SLOTS])
            turns += 1
            for stream in due:
                stream.turn()
            if turns % (SLOTS * FORGET_AFTER) == 0:
                self._frames.forget()
            await self._end_expired(due)

    async def _end_expired(self, streams: list[Stream]) -> None:
        """By the clock, where the event is late; the row knows of extensions."""
        past = time.time() - GRACE_SECONDS
        for stream in streams:
            if stream.expires_at is None or stream.expires_at > past:
                continue
            try:
                row = await mailboxes.by_id(self._pool, stream.watched)
            except UNREACHABLE as error:
                log.warning("can't look which mailboxes have ended", extra={"cause": repr(error)})
                return
            if row is not None and row.ended is None and row.expires_at.timestamp() > past:
                stream.expires_at = row.expires_at.timestamp()
            elif isinstance(stream.wire, AllSse):
                stream.end(COMPLETE)
            else:
                stream.end(inbox_ended("deleted" if row is not None and row.ended == "deleted" else "expired"))

    def _heard(self, record: Record, _cause: str) -> None:
        """An API key that is revoked ends its streams, and opens no more."""
        if record.topic != ACCOUNT_EVENTS.name or record.header("ce_type") != REVOCATION:
            return
        try:
            revoked: ApiKeyRevoked = events.ACCOUNT.decode(REVOCATION, record.value)
        except ValueError:
            log.exception("a revocation can't be read", extra={"position": record.offset})
            return
        self.revoked.add(revoked.key)
        for stream in self._all():
            if stream.key == revoked.key:
                stream.end(REVOKED)
