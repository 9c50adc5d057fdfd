"""From the one tail of a process to all streams that watch: who is told of what, once its row is committed.

Only what somebody watches is decoded. An event waits here until the feed has been folded beyond it; then its frame is built
once, and offered to every stream over its mailbox or its owner.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from gateways.http.endings import BEHIND
from gateways.http.frames import Frames, Told
from gateways.http.resume import is_too_old
from gateways.http.stream_measures import StreamMeasures
from gateways.http.streams import Stream
from gateways.log.tail import Tail
from gateways.stores.folded import FoldedPositions
from gateways.stores.postgres import UNREACHABLE, Pool
from projections import feed
from projections.projector import Projector
from schemas import events
from schemas.envelope import Record
from schemas.topics import MAILBOX_EVENTS

log = logging.getLogger(__name__)

TOPIC: Final = MAILBOX_EVENTS.name
FEED: Final = feed.PROJECTION.name
#: Rows read from the feed at once.
PAGE: Final = 200
#: Events of one partition that may wait for the feed; beyond, its streams end and resume from the table.
WAITING: Final = 10_000
#: Seconds between tries while Postgres can't be reached.
AGAIN_SECONDS: Final = 0.3


class Fanout:
    """Who watches what, and what waits to be told. `queue` and `reader_seconds` bound each stream."""

    def __init__(
        self,
        tail: Tail,
        folded: FoldedPositions,
        pool: Pool,
        frames: Frames,
        measures: StreamMeasures,
        *,
        queue: int,
        reader_seconds: float,
    ) -> None:
        self.measures = measures
        self.queue = queue
        self.reader_seconds = reader_seconds
        self._tail = tail
        self._folded = folded
        self._pool = pool
        self._frames = frames
        self._read = Projector(TOPIC, (), events.MAILBOX, pool).read
        self._watching: dict[str, set[Stream]] = {}
        self._waiting: dict[int, deque[feed.Entry]] = {}
        self._telling: dict[int, asyncio.Task[None]] = {}
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        self._ends = [self._tail.listen(self._heard), self._folded.listen(self._advanced)]

    async def stop(self) -> None:
        for end in self._ends:
            end()
        tasks = list(self._telling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── who watches ───────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, stream: Stream) -> None:
        self._watching.setdefault(stream.watched, set()).add(stream)

    def unwatch(self, stream: Stream) -> None:
        streams = self._watching.get(stream.watched)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._watching[stream.watched]

    # ── what streams ask (streams.Source) ─────────────────────────────────────────────────────────────────────────────

    def end(self, partition: int) -> int:
        return self._tail.position(TOPIC, partition)

    def now(self, partition: int) -> int:
        """Where a stream begins that asks for nothing earlier: what can be read already is no news, told or not."""
        return max(self.end(partition), self._end_of_feed(partition))

    async def folded(self, partition: int, position: int, *, seconds: float) -> bool:
        try:
            await self._folded.reached(FEED, TOPIC, partition, position, seconds=seconds)
        except TimeoutError:
            return False
        return True

    async def kept(self, partition: int, offset: int) -> bool:
        return not await is_too_old(self._pool, TOPIC, partition, offset)

    async def oldest(self, stream: Stream) -> int:
        """The first position the feed has for this stream; the end of the log where it has none."""
        rows = await self._rows(stream, 0, 1)
        return rows[0].position if rows else self.end(stream.partition)

    async def page(self, stream: Stream, since: int) -> tuple[list[Told], bool]:
        """What the feed has from this position on, ready to be told, and whether there may be more."""
        rows = await self._rows(stream, since, PAGE)
        told = [self._frames.of(row) for row in rows]
        if stream.wire.opens_summaries:
            await self._frames.open(told)
        return told, len(rows) == PAGE

    async def _rows(self, stream: Stream, since: int, limit: int) -> list[feed.Entry]:
        if stream.of_mailbox:
            return await feed.of_mailbox(self._pool, stream.watched, since=since, limit=limit)
        return await feed.of_owner(self._pool, stream.watched, TOPIC, stream.partition, since=since, limit=limit)

    # ── from the tail to the streams ──────────────────────────────────────────────────────────────────────────────────

    def _heard(self, record: Record, _cause: str) -> None:
        """Keeps what somebody watches. Must not raise: whoever else listens to the tail would hear no more."""
        if record.topic != TOPIC or not self._is_watched(record):
            return
        try:
            entry = feed.entry(self._read(record))
        except ValueError:
            log.exception("an event can't be read", extra={"partition": record.partition, "position": record.offset})
            return
        if entry is None:
            return
        waiting = self._waiting.setdefault(record.partition, deque())
        waiting.append(entry)
        if len(waiting) > WAITING:
            self._give_up(record.partition)
        self._tell_what_is_folded(record.partition)

    def _is_watched(self, record: Record) -> bool:
        """By its owner, who is its key, or by its mailbox, which is its subject."""
        if record.key in self._watching:
            return True
        subject = next((value for name, value in record.headers if name == "ce_subject"), b"")
        return subject.decode() in self._watching

    def _advanced(self, place: tuple[str, str, int], _position: int) -> None:
        if place[0] == FEED and place[1] == TOPIC:
            self._tell_what_is_folded(place[2])

    def _give_up(self, partition: int) -> None:
        self._waiting[partition].clear()
        for stream in [s for streams in self._watching.values() for s in streams if s.partition == partition]:
            stream.end(BEHIND)

    def _tell_what_is_folded(self, partition: int) -> None:
        waiting = self._waiting.get(partition)
        if waiting and waiting[0].position < self._end_of_feed(partition) and partition not in self._telling:
            self._telling[partition] = asyncio.create_task(self._tell(partition, waiting))

    def _end_of_feed(self, partition: int) -> int:
        return self._folded.positions.get((FEED, TOPIC, partition), 0)

    async def _tell(self, partition: int, waiting: deque[feed.Entry]) -> None:
        """One at a time for each partition, so that its order is kept."""
        try:
            while waiting and waiting[0].position < (end := self._end_of_feed(partition)):
                told: list[Told] = []
                while waiting and waiting[0].position < end and len(told) < PAGE:
                    told.append(self._frames.of(waiting.popleft()))
                await self._open(told)
                for one in told:
                    self._offer(one)
                # Fewer at once than may wait for a client: whoever reads has them written out before the next.
                await asyncio.sleep(0)
        except Exception:
            log.exception("streams end, to be resumed", extra={"partition": partition})
            self._give_up(partition)
        finally:
            del self._telling[partition]

    async def _open(self, told: list[Told]) -> None:
        wanted = [one for one in told if one.entry.mailbox in self._watching]
        while wanted:
            try:
                await self._frames.open(wanted)
                break
            except UNREACHABLE as error:
                log.warning("streams wait for the keyring", extra={"cause": repr(error)})
                await asyncio.sleep(AGAIN_SECONDS)

    def _offer(self, told: Told) -> None:
        for watched in {told.entry.mailbox, told.entry.owner}:
            for stream in list(self._watching.get(watched, ())):
                stream.offer(told)
