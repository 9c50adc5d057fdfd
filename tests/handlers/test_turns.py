"""Turns: attempts are begun one by one while very many mails are being asked for, and never wait for long."""

import asyncio

import pytest

from handlers import turns
from handlers.turns import MANY, Turn, Turns


async def waiting(of: Turns) -> "asyncio.Task[Turn]":
    """One that has begun to wait for its turn, or has it already."""
    task = asyncio.create_task(of.begin())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def slow() -> Turns:
    """Those of a process in which beginning takes long, and which is being asked for mails for as long as a test takes."""
    ours = Turns()
    turn = await ours.begin()
    turn._began -= 10
    turn.end()
    ours.asked()
    return ours


@pytest.fixture
def busy_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BUSY_SECONDS", 60)


async def test_while_nobody_asks_for_a_mail_all_begin_at_once() -> None:
    ours = await slow()
    await asyncio.sleep(turns.BUSY_SECONDS * 1.5)
    assert all([(await waiting(ours)).done() for _ in range(MANY * 3)])


@pytest.mark.usefixtures("busy_for_long")
async def test_while_beginning_is_quick_those_begin_at_once_that_are_not_very_many() -> None:
    ours = Turns()
    ours.asked()
    first = [await waiting(ours) for _ in range(MANY)]
    later = [await waiting(ours) for _ in range(3)]
    assert [task.done() for task in first + later] == [True] * MANY + [True, False, False], "one has the turn"
    later[0].result().end()
    await asyncio.wait_for(later[1], 1)
    assert not later[2].done()
    for task in [*first, later[1]]:
        task.result().end()
    await asyncio.wait_for(later[2], 1)
    assert (await waiting(ours)).done()


@pytest.mark.usefixtures("busy_for_long")
async def test_while_it_takes_long_each_that_has_begun_lets_one_more_begin() -> None:
    ours = await slow()
    first, second, third = [await waiting(ours) for _ in range(3)]
    assert [task.done() for task in (first, second, third)] == [True, False, False]
    second.cancel()
    for _ in range(3):
        first.result().end()  # which ends once
    await asyncio.wait_for(third, 1)
    assert not (await waiting(ours)).done()


@pytest.mark.usefixtures("busy_for_long")
async def test_nobody_waits_for_ever_where_mails_go_on_being_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)
    ours = await slow()
    taken = [await ours.begin() for _ in range(3)]
    for turn in taken:
        turn.end()
    first, second = [await waiting(ours) for _ in range(2)]
    assert (first.done(), second.done()) == (True, False)
