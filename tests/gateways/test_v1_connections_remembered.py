"""Pages that were sent last: never shown once something was folded, nor for longer than a second, and bounded."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateways.http.v1 import remembered
from gateways.http.v1.remembered import Remembered

KEY = ("acc_1", b"userId=usr_1")
PAGE = (b"{}", '"etag"')


class Told:
    """What tells how far projections are."""

    def __init__(self) -> None:
        self.tells: list[Callable[[tuple[str, str, int], int], None]] = []

    def listen(self, tells: Callable[[tuple[str, str, int], int], None]) -> Callable[[], None]:
        self.tells.append(tells)
        return lambda: None

    def tell(self, projection: str) -> None:
        for tells in self.tells:
            tells((projection, "topic", 0), 1)


def pages(told: Told) -> Remembered:
    folded: Any = told
    return Remembered(folded, ("connections", "users"))


@pytest.mark.parametrize(("projection", "found"), [("connections", None), ("users", None), ("messages", PAGE)])
async def test_a_page_is_forgotten_when_what_it_shows_may_have_changed(projection: str, found: Any) -> None:
    told = Told()
    kept = pages(told)
    kept.keep(KEY, PAGE, kept.version)
    assert (kept.page(KEY), kept.page(("acc_2", KEY[1])), kept.page((KEY[0], b""))) == (PAGE, None, None)
    told.tell(projection)
    assert kept.page(KEY) == found


async def test_a_page_that_was_asked_for_before_something_was_folded_is_not_kept() -> None:
    told = Told()
    kept = pages(told)
    before = kept.version
    told.tell("connections")
    kept.keep(KEY, PAGE, before)
    assert kept.page(KEY) is None


async def test_a_page_is_asked_for_anew_after_a_while_whatever_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "LONGEST_SECONDS", 0.05)
    kept = pages(Told())
    kept.keep(KEY, PAGE, kept.version)
    assert kept.page(KEY) == PAGE
    await asyncio.sleep(0.06)
    assert kept.page(KEY) is None


async def test_pages_take_no_more_than_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "BYTES", 100_000)
    kept = pages(Told())
    for number in range(10_000):
        kept.keep((f"acc_{number % 500}", b"x=%d" % number), PAGE, kept.version)
        kept.keep(("acc_hot", b""), (b"x" * 1000, '"e"'), kept.version)
    assert kept.page(("acc_hot", b"")) is not None
    assert kept.page(("acc_0", b"x=0")) is None
    assert len(kept._pages) < 200
