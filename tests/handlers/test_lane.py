"""A lane's line: what keeps records from being read is waited for, but not for what is decided already."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from handlers.documents import Documents
from handlers.lane import Chunk, Lane
from schemas.envelope import Record
from schemas.snapshots import Checkpoint

TOPIC = "mail.raw"


class NobodysSnapshots:
    """A lane's line asks for no document."""


class Reading:
    """Reads records, but for those whose content is gone."""

    def __init__(self, *gone: int) -> None:
        self.gone = gone
        self.failed = asyncio.Event()

    async def __call__(self, records: Sequence[Record]) -> list[Any]:
        if any(record.offset in self.gone for record in records):
            self.failed.set()
            raise FileNotFoundError("the blob store has no such blob")
        return [f"command {record.offset}" for record in records]


@pytest.fixture
async def lane() -> Lane:
    documents = Documents(NobodysSnapshots(), "mailbox", 0, lambda kind, value: value)  # type: ignore[arg-type] # it is asked for nothing
    return Lane(0, [TOPIC], documents)


def records(*offsets: int) -> list[Record]:
    return [Record(TOPIC, 0, offset, 0, "acc_1", b"", ()) for offset in offsets]


async def ready(lane: Lane) -> list[Chunk]:
    return await lane.next_chunks(100, 10)


async def test_what_was_decided_already_holds_up_nothing_though_its_content_is_gone(lane: Lane) -> None:
    """As with a mail that was rejected and thrown away before its decider died: the next one has it in line again."""
    reading = Reading(7)
    lane.put(TOPIC, records(7, 8), reading)
    await asyncio.wait_for(reading.failed.wait(), 10)
    lane.end, lane.next = 30, {TOPIC: 8}
    lane.prove()
    (chunk,) = await ready(lane)
    assert chunk.commands == [None, "command 8"]


async def test_what_is_to_be_decided_is_waited_for_until_it_can_be_read(lane: Lane) -> None:
    reading = Reading(8)
    lane.proven = Checkpoint(30, {TOPIC: 8})
    lane.put(TOPIC, records(7, 8, 9), reading)
    await asyncio.wait_for(reading.failed.wait(), 10)
    assert await lane.next_chunks(100, 0.5) == []
    reading.gone = ()
    (chunk,) = await ready(lane)
    assert chunk.commands == [None, "command 8", "command 9"]
    lane.retire()
