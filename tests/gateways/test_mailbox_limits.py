"""What one mailbox may do: held over all processes, and without a wave of those who were told to wait."""

import asyncio
from itertools import pairwise

import pytest

from gateways.stores.mailbox_limits import Allowed, MailboxLimits, Slot
from gateways.stores.postgres import pooled
from gateways.stores.rates import Limit, Rates
from projections.migrate import migrate


@pytest.fixture
async def pool(database):
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield pool


def limits(pool, holder, *, seconds=30.0, sends=None):
    allowed = dict.fromkeys(("gmail", "outlook", "smtp"), Allowed(sends, 3))
    return MailboxLimits(pool, Rates(pool), allowed, holder=holder, seconds=seconds)


async def test_over_all_processes_so_many_at_once_and_a_slot_that_was_given_up_is_free_again(pool):
    ours, theirs = limits(pool, "ours"), limits(pool, "theirs")
    taken = [await ours.take("smtp", "a"), await theirs.take("smtp", "a"), await ours.take("smtp", "a")]
    assert sorted(slot.number for slot in taken) == [1, 2, 3]
    assert await theirs.take("smtp", "a") is None
    assert await theirs.take("smtp", "another") is not None
    await theirs.give_back("a", Slot(taken[0].number, taken[1].holder))
    assert await theirs.take("smtp", "a") is None, "nobody gives back what is not theirs"
    await ours.give_back("a", taken[0])
    assert (await theirs.take("smtp", "a")).number == taken[0].number


async def test_a_slot_whose_holder_has_died_is_free_after_its_time_and_not_given_back_by_whoever_comes_late(pool):
    dead, alive = limits(pool, "dead", seconds=0.2), limits(pool, "alive")
    late = [await dead.take("smtp", "a") for _ in range(3)]
    slots = []
    async with asyncio.timeout(5):
        while len(slots) < 3:
            slots += [slot] if (slot := await alive.take("smtp", "a")) else []
    for one in late:
        await dead.give_back("a", one)
    assert await alive.take("smtp", "a") is None
    await alive.give_back("a", slots[0])
    assert await alive.take("smtp", "a") is not None


async def test_a_slot_is_held_for_as_long_again_unless_somebody_else_has_it(pool):
    slow, other = limits(pool, "slow", seconds=0.2), limits(pool, "other")
    first, second, third = [await slow.take("smtp", "a") for _ in range(3)]
    await pool.execute("update mailbox_slots set held_until = now()")
    taken = await other.take("smtp", "a")
    assert taken.number == first.number
    assert not await slow.renew("a", first)
    assert await limits(pool, "slow", seconds=60).renew("a", second), "nobody else wanted it"
    await other.give_back("a", taken)
    assert not await slow.renew("a", first), "it may be more than there is room for"
    assert [(await other.take("smtp", "a")).number for _ in range(2)] == [first.number, third.number]
    assert await other.take("smtp", "a") is None


async def test_two_who_take_the_last_slot_at_once_do_not_both_have_it(pool):
    several = [limits(pool, f"worker {number}") for number in range(8)]
    found = await asyncio.gather(*[one.take("smtp", "a") for one in several])
    assert len({slot.number for slot in found if slot}) == len([slot for slot in found if slot]) <= 3


async def test_those_who_wait_for_a_window_come_back_one_after_the_other(pool):
    held = limits(pool, "ours", sends=Limit("tried", 10, 60))
    waits = [await held.wait_for_rate("gmail", "a") for _ in range(40)]
    assert waits[:10] == [0.0] * 10
    waiting = [wait for wait in waits if wait]
    assert waiting == sorted(waiting)
    assert 25 * 6 < waiting[-1] < 30 * 6 + 61
    assert min(later - sooner for sooner, later in pairwise(waiting)) > 5.5


async def test_what_costs_more_takes_more_and_what_was_done_unasked_is_counted(pool):
    """Of two processes, each of which may hold what one send costs ahead of its need, and never more than there is."""
    allowed = {"gmail": Allowed(Limit("units", 1000, 60), None, 110)}
    ours, theirs = (MailboxLimits(pool, Rates(pool), allowed, holder=name, seconds=30) for name in ("ours", "theirs"))
    waits = [await one.wait_for_rate("gmail", "a") for _ in range(10) for one in (ours, theirs)]
    assert 8 <= waits.count(0.0) <= 9
    waiting = [wait for wait in waits if wait]
    assert all(wait > 40 for wait in waiting)
    await ours.spent("gmail", "b", 900)
    assert await ours.wait_for_rate("gmail", "b") > 40
    await ours.spent("gmail", "c", 100_000)
    await ours.spent("gmail", "c", 0)
    assert await theirs.wait_for_rate("gmail", "c") > 40
