"""Pages as they were sent last, for as long as nothing has been folded that could change them.

How far projections are is heard from Postgres when rows are committed, so a page is behind what a query would find for as
long as that word travels; a write through this process, and a read with `X-After-Position`, have waited for it. Where no
word comes any more, a page is asked for anew after a second. Who may see a page is asked for every request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from gateways.stores.folded import FoldedPositions, Place

BYTES: Final = 32 * 1024 * 1024
#: Seconds after which a page is asked for anew, whatever was heard.
LONGEST_SECONDS: Final = 1.0

#: A page's JSON, and its strong ETag.
Page = tuple[bytes, str]
Key = tuple[str, bytes]


class Remembered:
    """Pages by account and query, as far as they show rows of these projections. The least used go first."""

    def __init__(self, folded: FoldedPositions, projections: Collection[str]) -> None:
        self._projections = frozenset(projections)
        self._pages: OrderedDict[Key, tuple[float, Page]] = OrderedDict()
        self._bytes = 0
        #: Counts what was folded: a page is worth keeping where this has not moved since before its query.
        self.version = 0
        folded.listen(self._heard)

    def page(self, key: Key) -> Page | None:
        found = self._pages.get(key)
        if found is None or found[0] < asyncio.get_running_loop().time():
            return None
        self._pages.move_to_end(key)
        return found[1]

    def keep(self, key: Key, page: Page, version: int) -> None:
        """`version` is what it was before the query."""
        if version != self.version:
            return
        replaced = self._pages.pop(key, None)
        self._pages[key] = asyncio.get_running_loop().time() + LONGEST_SECONDS, page
        self._bytes += _size(key, page) - (_size(key, replaced[1]) if replaced else 0)
        while self._bytes > BYTES:
            oldest, (_, gone) = self._pages.popitem(last=False)
            self._bytes -= _size(oldest, gone)

    def _heard(self, place: Place, position: int) -> None:
        del position
        if place[0] in self._projections:
            self.version += 1
            self._pages.clear()
            self._bytes = 0


def _size(key: Key, page: Page) -> int:
    """Bytes, with what it takes to keep them."""
    return len(key[1]) + len(page[0]) + 500
