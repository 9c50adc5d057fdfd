"""How a command fails: one sentence that says what to try next, and an exit status for scripts."""

from typing import Final

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
TIMED_OUT: Final = 4
NOT_ALLOWED: Final = 5


class Failed(Exception):
    """A command could not do what it was asked; `code` is its exit status."""

    def __init__(self, sentence: str, *, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code
