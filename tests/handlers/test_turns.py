"""Turns: attempts are begun a few at a time while mails are being asked for, and never wait for long."""

import asyncio

import pytest

from handlers import turns
from handlers.turns import FEW, Turns


async def waiting(of: Turns) -> "asyncio.Task[turns.Turn]":
    """One that has begun to wait for its turn, or has it already."""
    task = asyncio.create_task(of.begin())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


def slow() -> Turns:
    """Those of a process in which beginning takes long."""
    ours = Turns()
    ours.took(10.0)
    return ours


async def test_while_beginning_is_quick_all_begin_at_once_whoever_asks_for_mails() -> None:
    ours = Turns()
    ours.asked()
    assert all([(await waiting(ours)).done() for _ in range(FEW * 10)])


async def test_all_begin_at_once_while_nobody_asks_for_a_mail() -> None:
    ours = slow()
    assert all([(await waiting(ours)).done() for _ in range(FEW * 10)])


async def test_while_mails_are_asked_for_a_few_begin_and_each_that_ends_lets_one_more_begin(monkeypatch) -> None:
    monkeypatch.setattr(turns, "BUSY_SECONDS", 60)
    ours = slow()
    ours.asked()
    first = [await waiting(ours) for _ in range(FEW)]
    later = [await waiting(ours) for _ in range(3)]
    assert [task.done() for task in first + later] == [True] * FEW + [False] * 3
    monkeypatch.setattr(turns, "SLOW_SECONDS", 0)
    for _ in range(3):
        first[0].result().end()  # which ends once
    await asyncio.wait(later, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in later] == [True, False, False]
    later[2].cancel()
    first[1].result().end()
    await asyncio.wait_for(later[1], 1)


async def test_nobody_waits_for_ever_where_mails_go_on_being_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(turns, "BUSY_SECONDS", 60)
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)
    ours = slow()
    ours.asked()
    taken = [await ours.begin() for _ in range(FEW + 2)]
    monkeypatch.setattr(turns, "SLOW_SECONDS", 0)
    for turn in taken:
        turn.end()
    assert all([(await waiting(ours)).done() for _ in range(FEW)])
    assert not (await waiting(ours)).done()


@pytest.mark.parametrize("seconds", [turns.BUSY_SECONDS * 1.5])
async def test_a_moment_after_the_last_was_asked_for_all_begin_again(seconds: float) -> None:
    ours = slow()
    ours.asked()
    for _ in range(FEW):
        await ours.begin()
    assert not (await waiting(ours)).done()
    await asyncio.sleep(seconds)
    assert (await waiting(ours)).done()
