"""What a lane knows: what is forgotten within an id is exactly that, whatever else is remembered, and costs as little."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from domain.mailbox_state import WITHIN
from gateways.stores.postgres import pooled
from gateways.stores.snapshots import Snapshots
from handlers import documents
from handlers.documents import Documents, Key
from projections.migrate import migrate
from schemas.snapshots import Checkpoint


@pytest.fixture
async def snapshots(database: str) -> AsyncIterator[Snapshots]:
    await migrate(database)
    async with pooled(database, size=2) as pool:
        yield Snapshots(pool)


def known(snapshots: Snapshots) -> Documents:
    return Documents(snapshots, "mailbox.v1", 0, lambda kind, body: int(body))


def there(lane: Documents) -> set[Key]:
    return {key for key, document in lane.items() if document is not None}


WITHIN_IT: list[Key] = [("message", "mbx_1/a"), ("repeat", "mbx_1/b"), ("request", "mbx_1/c/d"), ("message", "mbx_1/")]
OTHERS: list[Key] = [("mailbox", "mbx_1"), ("message", "mbx_10/a"), ("message", "mbx_2/mbx_1/a"), ("request", "/mbx_1")]


async def test_only_what_stands_within_an_id_is_forgotten_loaded_or_changed(snapshots: Snapshots) -> None:
    loaded, changed = known(snapshots), known(snapshots)
    await snapshots.save("mailbox.v1", 0, Checkpoint(1, {}, 0), dict.fromkeys(WITHIN_IT + OTHERS, b"1"), [])
    await loaded.load(WITHIN_IT + OTHERS)
    changed.apply(dict.fromkeys(WITHIN_IT + OTHERS, 1))
    for lane in (loaded, changed):
        lane.apply({(WITHIN, "mbx_1"): None})
        assert there(lane) == set(OTHERS)
        assert set(lane) == set(WITHIN_IT + OTHERS), "what is forgotten is known not to be there"
        lane.apply({WITHIN_IT[0]: 2})
        assert lane[WITHIN_IT[0]] == 2


async def test_what_was_let_go_or_cleared_is_loaded_and_forgotten_like_anything_else(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "REMEMBERED", 2)
    lane = known(snapshots)
    await snapshots.save("mailbox.v1", 0, Checkpoint(1, {}, 0), dict.fromkeys(WITHIN_IT + OTHERS, b"1"), [])
    await lane.load(WITHIN_IT + OTHERS)
    lane.let_go()
    assert list(lane) == (WITHIN_IT + OTHERS)[-2:]
    await lane.load(WITHIN_IT)
    lane.apply({(WITHIN, "mbx_1"): None})
    assert there(lane) == set(OTHERS[-2:])
    lane.clear()
    lane.apply({(WITHIN, "mbx_1"): None})
    assert len(lane) == 0


class Watched(str):
    """An id that counts how often any of its kind is looked at."""

    __slots__ = ()
    looks = 0

    def startswith(self, *of: Any) -> bool:
        Watched.looks += 1
        return super().startswith(*of)

    def partition(self, sep: str) -> tuple[str, str, str]:
        Watched.looks += 1
        return super().partition(sep)


def mailboxes(count: int, messages: int) -> Iterator[Key]:
    for box in range(count):
        for message in range(messages):
            yield "message", Watched(f"mbx_{box}/msg_{message}")


async def test_forgetting_a_mailbox_looks_at_what_is_within_it_and_at_nothing_else(snapshots: Snapshots) -> None:
    lane = known(snapshots)
    lane.apply(dict.fromkeys(mailboxes(2000, 5), 1))
    Watched.looks = 0
    lane.apply({(WITHIN, "mbx_7"): None})
    assert Watched.looks <= 5
    assert len(there(lane)) == 2000 * 5 - 5
