"""One client of a stream, small enough for twenty thousand of them.

While nothing happens a stream is this object and the request's coroutine, which waits for the client to leave. Whatever has
to be sent (events, signs of life, the end) is put down here, and a writer is started; it ends when all is sent. So only one
task writes at a time, and an idle client has none.

No gap and no repeat (DESIGN 4, rule 10): a stream first listens to what the tail tells and keeps it, then waits until the
feed has been folded up to where it began to listen, reads the feed from its token, and releases what it kept, leaving out
what the feed already told. What it could not keep in the meantime it reads again.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Protocol

from gateways.http.connections import Send, drop, drop_when_unreachable
from gateways.http.endings import BEHIND, COMPLETE, SLOW, Ending, inbox_ended
from gateways.http.feed_rows import FeedRows
from gateways.http.frames import Told
from gateways.http.resume import Place, offset_in, token
from gateways.http.stream_measures import Cause, Kind, StreamMeasures
from gateways.stores.postgres import UNREACHABLE
from schemas.topics import MAILBOX_EVENTS

log = logging.getLogger(__name__)

#: Seconds to wait for a position that another process has already told its client of.
AHEAD_SECONDS: Final = 2.0
#: Seconds between signs of life while the feed is behind.
BEHIND_SECONDS: Final = 7.5


class Gone(Exception):
    """The client has left, or was dropped because it does not read."""


class Wire(Protocol):
    """How a stream is spoken: which events it shows, and each as messages of ASGI."""

    kind: Kind
    beats_every: int
    opens_summaries: bool

    def shows(self, told: Told) -> bool: ...
    def first(self, next_token: str | None) -> list[dict[str, Any]]: ...
    def reset(self, next_token: str) -> dict[str, Any]: ...
    def telling(self, told: Sequence[Told]) -> list[dict[str, Any]]: ...
    def beat(self) -> dict[str, Any]: ...
    def last(self, ending: Ending) -> list[dict[str, Any]]: ...


class Source(Protocol):
    """Where streams come from: the tail's `end`, the feed, and `now`, the later of both."""

    queue: int
    reader_seconds: float
    measures: StreamMeasures
    rows: FeedRows

    def end(self, place: Place) -> int: ...
    def now(self, place: Place) -> int: ...
    async def folded(self, place: Place, position: int, *, seconds: float) -> bool: ...
    async def oldest(self, stream: "Stream") -> int: ...


class Stream:
    """One client who follows a mailbox, and ends with it. `watched` is the mailbox's id, `owner` who is counted.

    `topics`: those of which it has to be offered everything, whatever it watches.
    """

    topics: frozenset[str] = frozenset()

    __slots__ = (
        "_asked",
        "_beat",
        "_live",
        "_missed",
        "_queue",
        "_send",
        "_source",
        "_turn",
        "_writer",
        "cause",
        "ended",
        "ending",
        "expires_at",
        "key",
        "next",
        "owner",
        "partition",
        "watched",
        "wire",
    )

    def __init__(self, source: Source, wire: Wire, send: Send, *, watched: str, owner: str, partition: int) -> None:
        self._source = source
        self._send = send
        self.wire = wire
        self.watched = watched
        self.owner = owner
        self.partition = partition
        self.key: str | None = None
        self.expires_at: float | None = None
        self.next = 0
        self.ending: Ending | None = None
        self.ended = False
        self.cause: Cause = "left"
        self._asked: str | None = None
        self._queue: list[Told] = []
        self._live = False
        self._missed = False
        self._beat = False
        self._turn = 0
        self._writer: asyncio.Task[None] | None = None

    @property
    def of_mailbox(self) -> bool:
        """Whether it is over one mailbox, and ends with it."""
        return self.expires_at is not None

    @property
    def place(self) -> Place:
        """Where mailboxes' events are followed."""
        return MAILBOX_EVENTS.name, self.partition

    def follows(self, place: Place) -> bool:
        """Whether it hears of what happens there."""
        return place == self.place

    @property
    def writer(self) -> asyncio.Task[None] | None:
        return self._writer

    # ── what happens to it ────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, asked: str | None) -> None:
        """Starts telling, from this token or from now on; call it in the same step in which the stream is subscribed."""
        drop_when_unreachable(self._send, self._source.reader_seconds)
        self._begin_now()
        self._asked = asked or None
        self._writer = asyncio.create_task(self._write(first=True))

    def offer(self, told: Told) -> None:
        """An event of what is watched; its row is committed."""
        if self.ending is not None or not self.wire.shows(told) or (self._live and not self._is_news(told)):
            return
        if len(self._queue) < self._source.queue:
            self._queue.append(told)
        elif self._live:
            self.end(SLOW)
        else:
            self._missed = True
        if self._live:
            self._wake()

    def end(self, ending: Ending) -> None:
        """Says this and ends, whatever else there was to say."""
        if self.ending is None:
            self.ending = ending
            self.cause = ending.cause
            self._queue = []
            self._wake()

    def turn(self) -> None:
        """The one timer came by: a sign of life is due, now or every few turns."""
        self._turn += 1
        if self._writer is None and self._turn % self.wire.beats_every == 0:
            self._beat = True
            self._wake()

    def leave(self) -> None:
        """The client is no longer there."""
        self.ended = True
        if self._writer is not None:
            self._writer.cancel()

    def abort(self) -> None:
        """Ends the connection at once."""
        drop(self._send)

    def _begin_now(self) -> None:
        self.next = self._source.now(self.place)

    def _is_news(self, told: Told) -> bool:
        """Whether it has not been told yet."""
        return told.entry.position >= self.next

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wake(self) -> None:
        if self._writer is None and not self.ended:
            self._writer = asyncio.create_task(self._write(first=False))

    async def _write(self, *, first: bool) -> None:
        try:
            if first:
                await self._catch_up()
            while self._queue or self._beat or self.ending:
                if self._queue:
                    told, self._queue = self._queue, []
                    await self._tell([one for one in told if self._is_news(one)])
                elif self.ending:
                    await self._put(*self.wire.last(self.ending))
                    self.ended = True
                    break
                else:
                    self._beat = False
                    await self._put(self.wire.beat())
        except Gone:
            self.ended = True
        except Exception:
            log.exception("a stream could not go on")
            self.cause = "failed"
            self.abort()
        finally:
            self._writer = None

    async def _tell(self, told: list[Told]) -> None:
        end = next((place for place, one in enumerate(told) if one.ends_as), None) if self.of_mailbox else None
        if end is not None:
            told = told[: end + 1]
        if told:
            await self._put(*self.wire.telling(told))
            self._source.measures.sent(self.wire.kind, len(told))
            self.next = told[-1].entry.position + 1
        if end is not None and self.ending is None:
            self._queue = []
            says_so_itself = bool(self.wire.telling(told[-1:]))
            self.ending = COMPLETE if says_so_itself else inbox_ended(told[-1].ends_as or "expired")
            self.cause = self.ending.cause

    async def _put(self, *messages: dict[str, Any]) -> None:
        """Raises Gone where the client has left or doesn't read."""
        for message in messages:
            try:
                async with asyncio.timeout(self._source.reader_seconds):
                    await self._send(message)
            except TimeoutError as error:
                self.cause = "unread"
                self.abort()
                raise Gone from error
            except OSError as error:
                raise Gone from error

    # ── catching up ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _catch_up(self) -> None:
        asked, self._asked = self._asked, None
        await self._put(*self.wire.first(None if asked else self._token(self.next)))
        try:
            if asked is not None:
                since: int | None = await self._resumed_at(asked)
                while since is not None and self.ending is None:
                    since = await self._read_feed(since)
        except UNREACHABLE as error:
            log.warning("a stream ends, to be resumed", extra={"cause": repr(error)})
            self.end(BEHIND)
        self._live = True

    async def _resumed_at(self, asked: str) -> int:
        """The offset to go on from; says `reset` first where that isn't the one that was asked for."""
        offset = offset_in(asked, MAILBOX_EVENTS.name, self.partition)
        # Lists and writes give out positions of the tables, which may be ahead of this process's tail.
        now = partial(self._source.now, self.place)
        if offset is not None and offset > now():
            await self._source.folded(self.place, offset, seconds=AHEAD_SECONDS)
        if offset is not None and (
            offset == now() or (offset < now() and await self._source.rows.are_kept({self.place: offset}))
        ):
            return offset
        oldest = await self._source.oldest(self)
        await self._put(self.wire.reset(self._token(oldest)))
        self._source.measures.reset(self.wire.kind)
        return oldest

    async def _read_feed(self, since: int) -> int | None:
        """Tells what the feed has from here; None when what follows has been kept, else where to go on from."""
        self._queue, self._missed = [], False
        begin = self._source.end(self.place)
        more = since < begin
        while more and self.ending is None:
            if await self._source.folded(self.place, begin, seconds=BEHIND_SECONDS):
                break
            await self._put(self.wire.beat())
        while more and self.ending is None:
            told, more = await self._source.rows.of_mailbox(self.watched, since, opened=self.wire.opens_summaries)
            if told:
                await self._tell([one for one in told if self.wire.shows(one)])
                since = told[-1].entry.position + 1
        self.next = max(since, begin)
        return since if self._missed else None

    def _token(self, offset: int) -> str:
        return token(MAILBOX_EVENTS.name, self.partition, offset)
