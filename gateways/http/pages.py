"""Pages of message lists as they were sent last.

A page is what the messages' projection had folded up to a position; while its checkpoint stands there, the page is what a
query would find. Whether somebody may see it and whether the mailbox is still open is asked anew for every request: only
the rows and their opening are saved. Lines are kept apart from pages, since a message's line never changes but for
whether it was read.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

PAGES_BYTES: Final = 32 * 1024 * 1024
LINES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Page:
    """A page's JSON, consistent with everything before `position` and nothing after."""

    position: int
    body: bytes
    etag: str


#: A message's JSON before and after the word that says whether it was read.
Line = tuple[bytes, bytes]


class Pages:
    """Pages by mailbox, limit and offset; lines by message. The least used go first."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[str, int, int], Page] = OrderedDict()
        self._bytes = 0
        self._lines: OrderedDict[str, Line] = OrderedDict()

    def page(self, key: tuple[str, int, int], position: int) -> Page | None:
        found = self._pages.get(key)
        if found is None or found.position != position:
            return None
        self._pages.move_to_end(key)
        return found

    def keep(self, key: tuple[str, int, int], page: Page) -> None:
        replaced = self._pages.pop(key, None)
        self._pages[key] = page
        self._bytes += len(page.body) - (len(replaced.body) if replaced else 0)
        while self._bytes > PAGES_BYTES:
            self._bytes -= len(self._pages.popitem(last=False)[1].body)

    def line(self, message: str) -> Line | None:
        return self._lines.get(message)

    def keep_line(self, message: str, line: Line) -> None:
        self._lines[message] = line
        if len(self._lines) > LINES:
            self._lines.popitem(last=False)
