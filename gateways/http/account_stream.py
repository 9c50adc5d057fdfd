"""A stream over all of an account: its mailboxes, which stand in one partition, and its users' sends and connections, which
may stand in any partition of their topics.

Where such a client is, is a vector: a next offset for each of these places. Keeping one for every idle client would cost more
than all the rest of it. So a stream has a vector of its own only until what is told live has come as far as it has. From then
on every stream over the same account has been told the same, and what is told carries where that is (fanout.py).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from gateways.http.connections import Send
from gateways.http.endings import BEHIND
from gateways.http.frames import Told
from gateways.http.resume import Place, places_in, token, token_of_all
from gateways.http.streams import AHEAD_SECONDS, BEHIND_SECONDS, Source, Stream, Wire
from gateways.http.user_feeds import USER_FEEDS
from gateways.stores.postgres import UNREACHABLE
from schemas.topics import MAILBOX_EVENTS

log = logging.getLogger(__name__)

MAILBOXES: Final = MAILBOX_EVENTS.name
At = Mapping[Place, int]


class AccountWire(Wire, Protocol):
    """How it is spoken: also with tokens that are one stream's own."""

    def telling_at(self, told: Sequence[tuple[Told, str]]) -> list[dict[str, Any]]: ...


class AccountSource(Source, Protocol):
    """Where it comes from. `places` are all there are for owners of this partition of mailboxes, in order.

    `told`: up to where everything has been offered to the streams that watched.
    """

    def places(self, partition: int) -> list[Place]: ...
    def told(self, place: Place) -> int: ...
    async def oldest_of(self, owner: str, places: Sequence[Place]) -> dict[Place, int]: ...


class AccountStream(Stream):
    """One client who follows an account. `topics` are those it may see; a token names the others as well."""

    __slots__ = ("_at", "topics")

    _source: AccountSource
    wire: AccountWire

    def __init__(
        self,
        source: AccountSource,
        wire: AccountWire,
        send: Send,
        *,
        owner: str,
        partition: int,
        topics: frozenset[str],
    ) -> None:
        super().__init__(source, wire, send, watched=owner, owner=owner, partition=partition)
        self.topics = topics
        #: Its own vector; None once what is told live has come as far.
        self._at: dict[Place, int] | None = None

    def follows(self, place: Place) -> bool:
        return place[0] in self.topics and (place[0] != MAILBOXES or place == self.place)

    def offer(self, told: Told) -> None:
        if told.entry.topic in self.topics:
            super().offer(told)

    def turn(self) -> None:
        super().turn()
        self._join()

    # ── where it is ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_now(self) -> None:
        self._at = {place: self._source.now(place) for place in self._source.places(self.partition)}

    def _is_news(self, told: Told) -> bool:
        return self._at is None or told.entry.position >= self._at[told.place]

    def _join(self) -> None:
        """Gives its vector up once all before it has been offered to everybody, and nothing of that waits to be written."""
        if self._at is None or not self._live or self._queue:
            return
        if all(self._source.told(place) >= offset for place, offset in self._at.items()):
            self._at = None

    async def _tell(self, told: list[Told]) -> None:
        if not told:
            return
        if self._at is None:
            messages = self.wire.telling(told)
        else:
            messages = self.wire.telling_at([(one, self._seen(self._at, one)) for one in told])
        await self._put(*messages)
        self._source.measures.sent(self.wire.kind, len(told))
        self._join()

    def _seen(self, at: dict[Place, int], told: Told) -> str:
        at[told.place] = told.entry.position + 1
        return self._vector(at)

    def _vector(self, at: At) -> str:
        by_topic = {topic: [offset for place, offset in at.items() if place[0] == topic] for topic in USER_FEEDS}
        users = [token_of_all(topic, offsets) for topic, offsets in by_topic.items() if offsets]
        return ",".join([token(*self.place, at[self.place]), *users])

    # ── catching up ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _catch_up(self) -> None:
        asked, self._asked = self._asked, None
        at = self._at or {}
        followed = [place for place in at if self.follows(place)]
        named = {place: offset for place, offset in places_in(asked or "").items() if place in followed}
        # Of a place that the token doesn't name it is told what comes from now on: so that has an id to come back with.
        completed = self._vector(at | named) if asked is None or 0 < len(named) < len(followed) else None
        await self._put(*self.wire.first(completed))
        try:
            if asked is not None:
                await self._resume(at, named, followed)
                missed = True
                while missed and self.ending is None:
                    missed = await self._read_feeds(at, followed)
        except UNREACHABLE as error:
            log.warning("a stream ends, to be resumed", extra={"cause": repr(error)})
            self.end(BEHIND)
        self._live = True

    async def _resume(self, at: dict[Place, int], named: At, followed: list[Place]) -> None:
        """Goes to where the token says; where that can't be, says `reset` and goes to the oldest there is, everywhere."""
        for place, offset in named.items():
            if offset > self._source.now(place) and not await self._source.folded(place, offset, seconds=AHEAD_SECONDS):
                break
        past = {place: offset for place, offset in named.items() if offset < self._source.now(place)}
        there = bool(named) and all(offset <= self._source.now(place) for place, offset in named.items())
        if there and await self._source.rows.are_kept(past):
            at |= named
            return
        at |= await self._source.oldest_of(self.owner, followed)
        await self._put(self.wire.reset(self._vector(at)))
        self._source.measures.reset(self.wire.kind)

    async def _read_feeds(self, at: dict[Place, int], followed: list[Place]) -> bool:
        """Tells what the feeds have from here on; whether more was offered in the meantime than could be kept."""
        self._queue, self._missed = [], False
        begin = {place: self._source.end(place) for place in followed}
        behind = [place for place in followed if at[place] < begin[place]]
        for place in behind:
            while self.ending is None and not await self._source.folded(place, begin[place], seconds=BEHIND_SECONDS):
                await self._put(self.wire.beat())
        for topic in dict.fromkeys(topic for topic, _ in behind):
            more = True
            while more and self.ending is None:
                since = {place[1]: at[place] for place in behind if place[0] == topic and at[place] < begin[place]}
                told, more = await self._source.rows.of_account(self.owner, topic, since) if since else ([], False)
                await self._tell(told)
        for place in followed:
            at[place] = max(at[place], begin[place])
        return self._missed
