"""Accounts of the tests with a user in each partition and an inbox, what happens to them, and what a stream says of it."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from domain.mailbox_events import MailboxExtended
from gateways.http.resume import Place, token, token_of_all
from schemas.ids import new_id
from schemas.topics import CONNECTION_EVENTS, MAILBOX_EVENTS, SEND_EVENTS
from tests.support.feed_words import LATER, connection_life, send_life
from tests.support.sse_client import SseEvent, SseReader
from tests.support.streams_house import StreamsHouse

SENDS, CONNECTIONS, MAILBOXES = SEND_EVENTS.name, CONNECTION_EVENTS.name, MAILBOX_EVENTS.name
FEEDS: Final = {MAILBOXES: "feed", SENDS: "send_feed", CONNECTIONS: "connection_feed"}

#: What a stream says, without the time.
Mark = tuple[str, ...]


def marked(facts: dict[str, Any]) -> Mark:
    return tuple(f"{name}={value}" for name, value in sorted(facts.items()) if name != "at" and value is not None)


@dataclass(frozen=True)
class Step:
    """One event, where it goes, and what a stream says of it: None of nothing."""

    topic: str
    key: str
    event: Any
    mark: Mark | None


class Account:
    """One account; `places` are those that its streams follow."""

    def __init__(self, house: StreamsHouse, account: str, key: str) -> None:
        self.house, self.account, self.key = house, account, key
        users: dict[int, str] = {}
        while len(users) < house.partitions:
            user = new_id("usr")
            users[house.partition_of(user)] = user
        self.users = [users[number] for number in range(house.partitions)]
        everywhere = [(topic, number) for topic in (SENDS, CONNECTIONS) for number in range(house.partitions)]
        self.places: list[Place] = [(MAILBOXES, house.partition_of(account)), *everywhere]

    @classmethod
    async def opened(cls, house: StreamsHouse, *scopes: str) -> "Account":
        account, _, key = await house.account(*scopes)
        return cls(house, account, key)

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────

    def sends(self, user: str) -> list[Step]:
        send = new_id("snd")
        whose = {"messageId": send, "userId": user}
        return [_step(SENDS, user, event, facts, whose) for event, facts in send_life(send, user, self.account)]

    def connections(self, user: str) -> list[Step]:
        connection = new_id("con")
        whose = {"connectionId": connection, "userId": user}
        life = connection_life(connection, user, self.account)
        return [_step(CONNECTIONS, user, event, facts, whose) for event, facts in life]

    def inboxes(self, count: int) -> list[Step]:
        names = [new_id("mbx") for _ in range(count)]
        events = [(MailboxExtended(name, self.account, LATER), name) for name in names]
        facts = {"type": "mailbox.extended"}
        return [_step(MAILBOXES, self.account, event, facts, {"mailboxId": name}) for event, name in events]

    def lives(self) -> list[list[Step]]:
        """Of everything in every place."""
        return [*map(self.sends, self.users), *map(self.connections, self.users), self.inboxes(8)]

    # ── what is told ──────────────────────────────────────────────────────────────────────────────────────────────────

    def now(self) -> str:
        """A token: everything so far has been seen."""
        at = {place: self.house.folded.positions[FEEDS[place[0]], *place] for place in self.places}
        inboxes = self.places[0]
        users = [token_of_all(t, [at[t, n] for n in range(self.house.partitions)]) for t in (SENDS, CONNECTIONS)]
        return ",".join([token(*inboxes, at[inboxes]), *users])

    def place_of(self, event: SseEvent) -> Place:
        """Where this was told of."""
        assert event.type == event.facts["type"]
        topic = {"send": SENDS, "connection": CONNECTIONS}.get(event.type.split(".")[0], MAILBOXES)
        return topic, self.house.partition_of(event.facts.get("userId", self.account))

    def heard(self, events: Iterable[SseEvent]) -> dict[Place, list[Mark]]:
        """By place, in the order in which it came."""
        places: dict[Place, list[Mark]] = {}
        for event in events:
            places.setdefault(self.place_of(event), []).append(marked(event.facts))
        return places

    def wanted(self, steps: Iterable[Step]) -> dict[Place, list[Mark]]:
        """What is told of these steps, those of others left out; by place, in the order of the log."""
        places: dict[Place, list[Mark]] = {}
        for step in steps:
            if step.mark is not None and step.key in (self.account, *self.users):
                places.setdefault((step.topic, self.house.partition_of(step.key)), []).append(step.mark)
        return places


def _step(topic: str, key: str, event: Any, facts: dict[str, str] | None, whose: dict[str, str]) -> Step:
    return Step(topic, key, event, None if facts is None else marked(whose | facts))


def interleaved(lives: Iterable[list[Step]], luck: random.Random) -> list[Step]:
    """The steps of all lives, each life in its order."""
    rest, steps = [list(life) for life in lives], []
    while rest := [life for life in rest if life]:
        steps.append(luck.choice(rest).pop(0))
    return steps


async def happen(house: StreamsHouse, steps: Iterable[Step]) -> None:
    """One after the other; returns once all is folded."""
    for step in steps:
        await house.append_unfolded([step.event], step.key, step.topic)
    for topic, partition in list(house.ends):
        if topic in FEEDS:
            end = house.ends[topic, partition]
            await house.folded.reached(FEEDS[topic], topic, partition, end, seconds=20)


async def begun(reader: SseReader) -> str:
    """The id that the first bytes carry."""
    first = await reader.response.content.readuntil(b"\n\n")
    return first.decode().split("id: ")[1].strip()


async def read(reader: SseReader, count: int) -> list[SseEvent]:
    found = []
    for _ in range(count):
        event = await reader.next()
        assert event is not None
        found.append(event)
    return found


async def read_to(reader: SseReader, last: Step) -> list[SseEvent]:
    """What comes before this."""
    found: list[SseEvent] = []
    while (event := (await read(reader, 1))[0]) is not None and marked(event.facts) != last.mark:
        found.append(event)
    return found
