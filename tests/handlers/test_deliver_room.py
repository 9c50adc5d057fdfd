"""Work whose mailbox has as many sends under way as it may: it comes back, and not more often than it went."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.deliver import Delivering
from handlers.deliver_parts import Parts
from handlers.tiers import Waits
from schemas.envelope import Record
from schemas.vocabulary import encode
from schemas.work import WORK, DeliverSend

WORK_OF_1 = DeliverSend("snd_1", "usr_1", "con_1", "smtp", "digest")
RECORD = Record("deliver.smtp", 0, 7, 0, "con_1", [], b"")


@dataclass
class Full:
    """A mailbox without room, and a log that keeps what waits for it as it would be read; it `fails` so many times first."""

    fails: int = 0
    queued: list[Any] = field(default_factory=list)

    async def take(self, provider, mailbox):
        return None

    async def put(self, topic, work, trace):
        if self.fails:
            self.fails -= 1
            raise ConnectionError("the log is away")
        self.queued.append(WORK.decode(WORK.type_of(work), encode(work)))


def delivering(world: Any) -> Delivering:
    parts = Parts(world, world, world, {}, world, Waits(world), world, world, world)
    return Delivering(parts, worker="w", timeout=1.0)


async def test_copies_of_what_waits_for_room_come_back_as_one():
    full = Full()
    worker = delivering(full)
    for due in (None, None, datetime(2026, 3, 13, tzinfo=UTC)):
        await worker.act(replace(WORK_OF_1, due=due), RECORD)
    assert [work.send for work in full.queued] == ["snd_1"]
    await worker.act(replace(WORK_OF_1, connection="con_2"), RECORD)
    await worker.act(replace(WORK_OF_1, send="snd_2"), RECORD)
    assert [(work.send, work.connection) for work in full.queued[1:]] == [("snd_1", "con_2"), ("snd_2", "con_1")]


async def test_what_has_come_back_is_no_copy_though_it_comes_early_by_our_clock():
    """Who let it out of its tier may be ahead of us: dropped, it would be missed by a timer only."""
    full = Full()
    worker = delivering(full)
    await worker.act(WORK_OF_1, RECORD)
    await worker.act(full.queued[0], RECORD)
    assert len(full.queued) == 2
    assert full.queued[1].due >= full.queued[0].due > datetime.now(UTC)


async def test_what_could_not_be_put_where_it_waits_is_put_there_the_next_time():
    full = Full(fails=1)
    worker = delivering(full)
    with pytest.raises(ConnectionError):
        await worker.act(WORK_OF_1, RECORD)
    await worker.act(WORK_OF_1, RECORD)
    assert len(full.queued) == 1
