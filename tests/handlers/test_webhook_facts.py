"""Whom to tell of what happened to a connection, where the tables know little of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from domain.connection_events import ReauthorisationRequired
from handlers.webhook_facts import Tells
from schemas import events, topics
from schemas.envelope import Record, Source, event_headers
from schemas.vocabulary import encode

EVENT = ReauthorisationRequired("con_1", "usr_1", "invalid_grant", "its user took it back", 2)


@dataclass
class World:
    """Tables, and what is asked to be told. The tables know the owner from the moment that they are past the event on."""

    owner: str | None
    behind: int = 0
    asked: int = 0
    told: list[Any] = field(default_factory=list)

    async def owner_of(self, connection: str) -> str | None:
        self.asked += 1
        return None if self.behind else self.owner

    async def shown(self, source: Source) -> bool:
        self.behind = max(self.behind - 1, 0)
        return not self.behind

    async def wanting(self, account: str, kind: str, at: datetime) -> Sequence[str]:
        return ["whk_1"]

    async def command(self, topic: str, key: str, command: Any, **_: Any) -> None:
        self.told.append(command.callback)


async def tells(world: World) -> None:
    headers = event_headers(
        event_id="cmd_1.0", kind=events.CONNECTION.type_of(EVENT), subject="con_1", at=datetime.now(UTC), position=7,
        cause={"ce_id": "cmd_1"}, source=Source("connection.commands", 0, 7), sequence=1,
    )  # fmt: skip
    record = Record(topics.CONNECTION_EVENTS.name, 0, 7, 0, "usr_1", encode(EVENT), headers)
    async with asyncio.timeout(10):
        await Tells(world, world).act(EVENT, record)  # type: ignore[arg-type]  # what a connection's event asks for


async def test_nobody_is_told_of_a_connection_whose_beginning_was_skipped() -> None:
    """It would be asked for again for ever, and hold up all that comes behind it in its partition."""
    world = World(None)
    await tells(world)
    assert (world.told, world.asked) == ([], 2)


async def test_what_the_tables_have_yet_to_show_is_waited_for() -> None:
    world = World("acc_1", behind=2)
    await tells(world)
    [callback] = world.told
    assert (callback.account, callback.endpoint) == ("acc_1", "whk_1")


async def test_where_the_owner_is_known_it_is_asked_for_once() -> None:
    world = World("acc_1")
    await tells(world)
    assert (len(world.told), world.asked) == (1, 1)
