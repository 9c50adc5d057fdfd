"""Taking a mail down block by block, in flat memory, with one meaning for its line ends.

A lone CR or LF is a line end to some readers and an ordinary character to others, which is how one header becomes two.
So every line end, of whatever kind, is written as CRLF (RFC 5321 2.3.8). Size and sha256 are those of the bytes written.
"""

from hashlib import sha256
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import BinaryIO, Self, cast

from gateways.mail_in.door import Spooled

MAX_MAIL = 25 * 1024 * 1024
_IN_MEMORY = 256 * 1024


class TooLarge(Exception):
    """The mail has more bytes than the limit."""


class Spool:
    """A context manager; what `done` returned is closed with it. `limit` is in bytes, after line ends were made CRLF."""

    def __init__(self, limit: int = MAX_MAIL) -> None:
        self._limit = limit
        self._size = 0
        self._sha256 = sha256()
        self._ends_in_cr = False
        # The file outlives this line on purpose: it is closed in __exit__.
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - it outlives this line on purpose and is closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, block: bytes) -> None:
        """Adds the next bytes of the mail as it came. Raises TooLarge as soon as they are too many."""
        if self._ends_in_cr:
            block = b"\r" + block
        self._ends_in_cr = block.endswith(b"\r")
        self._keep(_crlf(block[:-1] if self._ends_in_cr else block))

    def done(self) -> Spooled:
        """The whole mail, its file at the start."""
        if self._ends_in_cr:
            self._ends_in_cr = False
            self._keep(b"\r\n")
        self._file.seek(0)
        # A spooled file does all that a BinaryIO does, but isn't declared as one.
        return Spooled(file=cast("BinaryIO", self._file), size=self._size, sha256=self._sha256.hexdigest())

    def _keep(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._limit:
            raise TooLarge
        self._sha256.update(block)
        self._file.write(block)


def _crlf(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
