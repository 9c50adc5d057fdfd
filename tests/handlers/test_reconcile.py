"""Looks at attempts in doubt that come more than once."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from domain.delivery import NotProven
from domain.tokens import Secrets
from handlers.accesses import Accesses
from handlers.deliver_parts import Parts
from handlers.reconcile import Reconciling
from handlers.refresh_parts import AccessToken
from handlers.tiers import Waits
from schemas.envelope import Record
from schemas.work import LookForSend

LOOK = LookForSend(
    "snd_1", "usr_1", "con_1", "gmail", "digest", 1, "<snd_1@mail.test>", 3, datetime.now(UTC), draft="draft"
)
RECORD = Record("deliver.gmail", 0, 7, 0, "con_1", [], b"")


@dataclass
class Held:
    secrets: Secrets
    version: int = 1


@dataclass
class World:
    """A provider that knows nothing yet, and all that a look takes beside it; `fails` so many times to queue the next one."""

    fails: int = 0
    looks: int = 0
    queued: list[LookForSend] = field(default_factory=list)
    spent_of: int = 0

    async def look(self, traces, access, *, last, spends):
        self.looks += 1
        spends(5)
        await asyncio.sleep(0)
        return NotProven("nothing_found")

    async def put(self, topic, work, trace):
        if self.fails:
            self.fails -= 1
            raise ConnectionError("the log is away")
        self.queued.append(work)

    async def get(self, connection):
        return Held(Secrets("token", "refresh", None))

    async def access_token(self, connection, *, refused=None):
        return AccessToken("token", 1, None)

    async def address(self, connection):
        return "ada@mail.test", []

    async def spent(self, provider, mailbox, cost):
        self.spent_of += cost

    def note(self, connection, user, call):
        pass


def reconciling(world: Any) -> Reconciling:
    parts = Parts(world, world, Accesses(world, world), {"gmail": world}, world, Waits(world), world, world, world)
    return Reconciling(parts)


async def test_a_look_that_comes_again_is_no_second_look_and_brings_no_second_next_one():
    """Each copy would be followed by copies of the next look, and those by theirs."""
    world = World()
    looking = reconciling(world)
    await asyncio.gather(*[looking.act(LOOK, RECORD) for _ in range(5)])
    await looking.act(LOOK, RECORD)
    assert (world.looks, [work.number for work in world.queued], world.spent_of) == (1, [4], 5)
    await looking.act(world.queued[0], RECORD)
    assert (world.looks, [work.number for work in world.queued]) == (2, [4, 5])


async def test_where_a_look_fails_the_next_of_its_copies_is_done():
    world = World(fails=1)
    looking = reconciling(world)
    ends = await asyncio.gather(*[looking.act(LOOK, RECORD) for _ in range(3)], return_exceptions=True)
    assert [type(end) for end in ends] == [ConnectionError, type(None), type(None)]
    assert (world.looks, [work.number for work in world.queued]) == (2, [4])


async def test_one_that_is_under_way_is_waited_for():
    """Its place may be kept once this one has ended: nobody else would look."""
    world = World()
    looking = reconciling(world)
    first = asyncio.create_task(looking.act(LOOK, RECORD))
    copy = asyncio.create_task(looking.act(LOOK, RECORD))
    while not world.looks:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first, copy])
    assert first.cancelled()
    assert (copy.exception(), world.looks, len(world.queued)) == (None, 2, 1)
