"""Compare and append holds what it promises: with two owners of everything, with a zombie, and when it is killed."""

import asyncio
import signal
from random import Random

import pytest

from domain.mailbox_commands import DeleteMessage, ReadMessage
from domain.plans import Limits, Plan
from schemas.topics import DECIDER_BATCH_BYTES
from tests.faults.installation import EVENTS, Installation, installed
from tests.faults.looking import violations

#: Small limits: the order of commands decides what becomes of them.
TIGHT = Plan("tight", Limits(default_ttl_minutes=60, longest_ttl_minutes=60, live_mailboxes=3, live_messages=5))


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path):
    async with installed(servers, database, topic_prefix, tmp_path, partitions=2) as house:
        yield house


async def load(house: Installation, rounds: int, *, pause: float = 0) -> None:
    """Mailboxes of a few owners up to and past their quota, and mail, reads and deletions in them."""
    for number in range(rounds):
        await asyncio.sleep(pause)
        owner = f"acc_{number % 7}"
        box = await house.open_mailbox(owner, TIGHT)
        sent = [await house.mail(box, b"Subject: %d\r\n\r\nhi %d\r\n" % (number, n)) for n in range(3)]
        await asyncio.gather(
            house.ask(ReadMessage(box.mailbox, sent[0]), owner),
            house.ask(DeleteMessage(box.mailbox, sent[1], owner), owner),
            house.mail(box, b"Subject: one more\r\n\r\n%d\r\n" % number),
        )


async def voids(house: Installation) -> int:
    return sum(record.void for record in await house.records(EVENTS))


async def test_two_owners_of_every_partition_at_once_decide_each_command_once_and_rightly(house):
    await asyncio.gather(house.start("work", owner=".a"), house.start("work", owner=".b"), house.start("project"))
    await asyncio.gather(*[load(house, 12) for _ in range(4)])
    await house.quiet()
    for role in house.roles:
        await role.stop()
    assert await voids(house) > 0, "two owners that never met prove nothing"
    assert await violations(house) == []


async def test_what_a_zombie_appends_after_somebody_else_wrote_is_void(house):
    await house.start("project")
    zombie = await house.start("work", owner=".a", stop="D batch handed over:6")
    loading = asyncio.create_task(load(house, 25))
    async with asyncio.timeout(30):
        while not zombie.landed:
            await asyncio.sleep(0.02)
    other = await house.start("work", owner=".b")
    await loading
    await house.quiet()
    before = await voids(house)
    zombie.signal(signal.SIGCONT)
    await load(house, 4)
    await house.quiet()
    assert await zombie.stop() == 0
    assert await other.stop() == 0
    assert await voids(house) > before, "the zombie's batch never came"
    assert await violations(house) == []


async def test_a_decider_killed_between_its_acknowledgement_and_its_snapshot_repeats_nothing(house):
    await house.start("project")
    loading = asyncio.create_task(load(house, 10_000, pause=0.02))
    for point, nth in (("D acknowledged, not folded", 3), ("D before snapshot", 2), ("D acknowledged, not folded", 9)):
        killed = await house.start("work", kill=f"{point}:{nth}")
        assert await killed.ended() == -signal.SIGKILL
        assert killed.landed == [point]
    loading.cancel()
    last = await house.start("work")
    await house.quiet()
    await last.stop()
    assert await voids(house) == 0, "one owner at a time, and yet its own events were in its way"
    assert await violations(house) == []


async def test_more_events_than_one_record_batch_holds_are_cut_between_two_commands(house):
    box = await house.open_mailbox("acc_big")
    letters = Random(1)
    for number in range(40):
        text = b"Subject: %d\r\n\r\n" % number + bytes(letters.choices(range(33, 127), k=95_000)) + b"\r\n"
        await house.mail(box, text)
    work, _ = await asyncio.gather(house.start("work"), house.start("project"))
    await house.quiet()
    await work.stop()
    assert sum(len(record.value) for record in await house.records(EVENTS)) > 3 * DECIDER_BATCH_BYTES
    assert await violations(house) == []
