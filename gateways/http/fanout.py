"""From the one tail of a process to all streams that watch: who is told of what, once its row is committed.

Only what somebody watches is kept. An event waits here until its feed has been folded beyond it; then its frame is built
once, and offered to every stream over its mailbox or its owner.

The streams over an account are offered the same events, in the order in which they become readable here. So where they are is
the same for all of them: `told`, in each place up to where all has been offered. It goes out with each event (`token`).
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from gateways.http.account_stream import AccountStream
from gateways.http.endings import BEHIND
from gateways.http.feed_rows import PAGE, FeedRows
from gateways.http.frames import Frames, Told
from gateways.http.resume import Place, token, token_of_all
from gateways.http.stream_measures import StreamMeasures
from gateways.http.streams import Stream
from gateways.http.user_feeds import USER_FEEDS
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
#: The projection that feeds each topic's streams.
FEEDS: Final = {TOPIC: feed.PROJECTION.name} | {topic: found.projection.name for topic, found in USER_FEEDS.items()}
#: Events of one partition that may wait for the feed; beyond, its streams end and resume from the table.
WAITING: Final = 10_000
#: Seconds between tries while Postgres can't be reached.
AGAIN_SECONDS: Final = 0.3


class Heard(NamedTuple):
    """What waits to be told. Without an `entry` its row says what there is to tell, if anything."""

    position: int
    entry: feed.Entry | None = None


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
        self.rows = FeedRows(pool, frames)
        self._frames = frames
        self._read = Projector(TOPIC, (), events.MAILBOX, pool).read
        self._watching: dict[str, set[Stream]] = {}
        self._seeing: Counter[str] = Counter()
        self._waiting: dict[Place, deque[Heard]] = {}
        self._telling: dict[Place, asyncio.Task[None]] = {}
        self._partitions: dict[str, list[Place]] = {}
        self._parts: dict[str, str] = {}
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        self._partitions = {
            topic: [place for place in self._tail.partitions if place[0] == topic] for topic in USER_FEEDS
        }
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
        self._seeing.update(stream.topics)

    def unwatch(self, stream: Stream) -> None:
        streams = self._watching.get(stream.watched)
        if streams is not None:
            streams.discard(stream)
            self._seeing.subtract(stream.topics)
            if not streams:
                del self._watching[stream.watched]

    # ── what streams ask (streams.Source, account_stream.AccountSource) ───────────────────────────────────────────────

    def end(self, place: Place) -> int:
        return self._tail.position(*place)

    def now(self, place: Place) -> int:
        """Where a stream begins that asks for nothing earlier: what can be read already is no news, told or not."""
        return max(self.end(place), self._end_of_feed(place))

    def told(self, place: Place) -> int:
        """Up to where everything has been offered to whoever watched: never beyond what is still to be heard or folded."""
        waiting = self._waiting.get(place)
        return waiting[0].position if waiting else self._end_of_both(place)

    def places(self, partition: int) -> list[Place]:
        """Where things happen to accounts whose mailboxes stand in this partition."""
        return [(TOPIC, partition), *(place for places in self._partitions.values() for place in places)]

    async def folded(self, place: Place, position: int, *, seconds: float) -> bool:
        try:
            await self._folded.reached(FEEDS[place[0]], *place, position, seconds=seconds)
        except TimeoutError:
            return False
        return True

    async def oldest(self, stream: Stream) -> int:
        """The first position the feed has for this stream; where it has none, the end of what can be read."""
        end = self._end_of_both(stream.place)
        first = await self.rows.first_of_mailbox(stream.watched)
        return end if first is None else first

    async def oldest_of(self, owner: str, places: Sequence[Place]) -> dict[Place, int]:
        """The same of an account, in each of these places."""
        ends = {place: self._end_of_both(place) for place in places}
        return ends | await self.rows.first_of_account(owner, places)

    # ── from the tail to the streams ──────────────────────────────────────────────────────────────────────────────────

    def _heard(self, record: Record, _cause: str) -> None:
        """Keeps what somebody watches. Must not raise: whoever else listens to the tail would hear no more."""
        if record.topic not in FEEDS:
            return
        place = record.topic, record.partition
        self._parts.pop(record.topic, None)
        heard = self._kept(record)
        if heard is None:
            return
        waiting = self._waiting.setdefault(place, deque())
        waiting.append(heard)
        if len(waiting) > WAITING:
            self._give_up(place)
        self._tell_what_is_folded(place)

    def _kept(self, record: Record) -> Heard | None:
        """What is to be told of this record, perhaps; None where nobody wants to know."""
        if record.topic != TOPIC:
            seen = self._seeing[record.topic] and _header(record, "ce_type") in USER_FEEDS[record.topic].kinds
            return Heard(record.offset) if seen else None
        if not self._is_watched(record):
            return None
        try:
            entry = feed.entry(self._read(record))
        except ValueError:
            log.exception("an event can't be read", extra={"partition": record.partition, "position": record.offset})
            return None
        return Heard(entry.position, entry) if entry is not None else None

    def _is_watched(self, record: Record) -> bool:
        """By its owner, who is its key, or by its mailbox, which is its subject."""
        return record.key in self._watching or _header(record, "ce_subject").decode() in self._watching

    def _advanced(self, checkpoint: tuple[str, str, int], _position: int) -> None:
        name, topic, partition = checkpoint
        if FEEDS.get(topic) == name:
            self._parts.pop(topic, None)
            self._tell_what_is_folded((topic, partition))

    def _give_up(self, place: Place) -> None:
        """Ends all streams that were to be told of what waits; it waits no more."""
        self._waiting.pop(place, None)
        for stream in [s for streams in self._watching.values() for s in streams if s.follows(place)]:
            stream.end(BEHIND)

    def _tell_what_is_folded(self, place: Place) -> None:
        waiting = self._waiting.get(place)
        if waiting and waiting[0].position < self._end_of_feed(place) and place not in self._telling:
            self._telling[place] = asyncio.create_task(self._tell(place, waiting))

    def _end_of_feed(self, place: Place) -> int:
        return self._folded.positions.get((FEEDS[place[0]], *place), 0)

    def _end_of_both(self, place: Place) -> int:
        return min(self.end(place), self._end_of_feed(place))

    async def _tell(self, place: Place, waiting: deque[Heard]) -> None:
        """One at a time for each partition, so that its order is kept."""
        try:
            while waiting and waiting[0].position < (end := self._end_of_feed(place)):
                batch = [heard for heard in islice(waiting, PAGE) if heard.position < end]
                told = await self._ready(place, batch)
                if self._waiting.get(place) is not waiting:
                    break
                for one in told:
                    self._told_up_to(place, waiting, one.entry.position)
                    self._offer(one)
                self._told_up_to(place, waiting, batch[-1].position)
                # Fewer at once than may wait for a client: whoever reads has them written out before the next.
                await asyncio.sleep(0)
        except Exception:
            log.exception("streams end, to be resumed", extra={"topic": place[0], "partition": place[1]})
            self._give_up(place)
        finally:
            del self._telling[place]
        self._tell_what_is_folded(place)

    def _told_up_to(self, place: Place, waiting: deque[Heard], position: int) -> None:
        """What stands there and before it waits no more."""
        while waiting and waiting[0].position <= position:
            waiting.popleft()
        self._parts.pop(place[0], None)

    async def _ready(self, place: Place, batch: list[Heard]) -> list[Told]:
        """Reads rows and opens summaries where that is needed, for as long as it takes to reach Postgres."""
        told = [self._frames.of(heard.entry) for heard in batch if heard.entry is not None]
        while True:
            try:
                if place[0] == TOPIC:
                    await self._frames.open(
                        [
                            one
                            for one in told
                            if isinstance(one.entry, feed.Entry) and one.entry.mailbox in self._watching
                        ]
                    )
                else:
                    rows = await self.rows.at_positions(place, [heard.position for heard in batch])
                    told = [self._frames.of(row) for row in rows if row.owner in self._watching]
            except UNREACHABLE as error:
                log.warning("streams wait for Postgres", extra={"cause": repr(error)})
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return told

    def _offer(self, told: Told) -> None:
        entry = told.entry
        for watched in {entry.mailbox, entry.owner} if isinstance(entry, feed.Entry) else {entry.owner}:
            for stream in list(self._watching.get(watched, ())):
                if isinstance(stream, AccountStream) and not told.account_token:
                    told.account_token = self._token(stream.partition)
                stream.offer(told)

    def _token(self, partition: int) -> str:
        """Where every stream over an account is that has been offered all so far."""
        parts = [token(TOPIC, partition, self.told((TOPIC, partition)))]
        for topic, places in self._partitions.items():
            if topic not in self._parts:
                self._parts[topic] = token_of_all(topic, [self.told(place) for place in places])
            if places:
                parts.append(self._parts[topic])
        return ",".join(parts)


def _header(record: Record, wanted: str) -> bytes:
    return next((value for name, value in record.headers if name == wanted), b"")
