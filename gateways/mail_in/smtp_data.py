"""The bytes after 354, read in blocks.

What this promises:

- Only `CRLF . CRLF` ends a mail, wherever the network split it (RFC 5321 4.1.1.4). `LF . LF`, `CR . CR` and every mixture
  of them are content, so nobody can hide a second mail in a first one.
- What is kept has one meaning. Every bare CR and every bare LF becomes CRLF, and then a dot at the beginning of a line is
  taken away (RFC 5321 4.5.2); clients that send bare LFs, such as smtplib with bytes, double the dots behind those too.
  `size` and `sha256` are those of the bytes kept, not of the bytes on the wire.
- Memory stays flat and the event loop stays free, whatever a line's length is: a block costs a few passes in C. What exceeds
  `memory` bytes is in an unnamed file, but for a few mails at a time that are given `Room` to be a little larger.

A block can end inside of an end mark, or between a line and its dot. The few bytes that could be the beginning of either
are held back and looked at again in front of the next block; what is handed on therefore never ends with a line end or a
part of one, and can be rewritten without knowing what follows.
"""

import hashlib
import os
import tempfile
from enum import Enum, auto
from typing import BinaryIO, cast

from gateways.mail_in.door import Spooled

_END = b"\r\n.\r\n"
_HELD_BACK = (_END[:4], _END[:3], _END[:2], _END[:1], b"\n")
_HEADERS_READ = 256 * 1024


class Fate(Enum):
    """What became of a mail while it was read."""

    GOOD = auto()
    TOO_LARGE = auto()
    NO_SPACE = auto()


class Room:
    """Places in memory for mails of at most `size` bytes: as many at once as `places`."""

    def __init__(self, size: int, places: int) -> None:
        self.size = size
        self._free = places

    def take(self) -> bool:
        """Whether there was a place; it is ours until `give_back`."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1


class IncomingMail:
    """One mail on its way in: `feed` it blocks until it has ended, then take it as `spooled`, then `close` it."""

    def __init__(self, *, limit: int, excess: int, memory: int, room: Room) -> None:
        self.fate = Fate.GOOD
        self.ended = False
        self.size = 0
        self.wire_size = 0
        self._limit = limit
        self._excess = excess
        self._thrown_away = 0
        # The CRLF of the DATA command itself: a dot on the very first line is a dot on a line of its own.
        self._held = b"\r\n"
        self._at_start = True
        self._sha256 = hashlib.sha256()
        self._memory = memory
        self._room = room
        self._has_place = False
        self._in_file = False
        self._file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - lives as long as the mail; see close()

    def feed(self, block: bytes) -> bytes:
        """Takes the next block from the wire; returns what came after the end mark (only then `ended` is true)."""
        self.wire_size += len(block)
        text = self._held + block
        end = text.find(_END) if b"." in text else -1  # one byte is found many times faster than five
        if end >= 0:
            self.ended = True
            self._keep(text[: end + 2])
            return text[end + len(_END) :]
        held = next((len(tail) for tail in _HELD_BACK if text.endswith(tail)), 0)
        self._held = text[len(text) - held :]
        self._keep(text[: len(text) - held])
        return b""

    @property
    def flooding(self) -> bool:
        """More has come after the limit than is worth reading for the sake of a polite answer."""
        return self.fate is not Fate.GOOD and self._thrown_away > self._excess

    def spooled(self) -> Spooled:
        """The mail as it is handed on; its file is this mail's own, and ends with `close`."""
        self._file.seek(0)
        # A SpooledTemporaryFile is a BinaryIO in all but its declared type.
        return Spooled(file=cast("BinaryIO", self._file), size=self.size, sha256=self._sha256.hexdigest())

    def received_headers(self) -> int:
        """How many `Received` headers the mail begins with: the hops it has made (RFC 5321 6.3)."""
        self._file.seek(0)
        head = self._file.read(_HEADERS_READ)
        head = head[: head.find(b"\r\n\r\n") + 1 or len(head)]
        return (b"\r\n" + head).lower().count(b"\r\nreceived:")

    def close(self) -> None:
        """Lets go of the bytes."""
        self._file.close()
        self._leave_place()

    def _keep(self, text: bytes) -> None:
        if not text:
            return
        text = canonical(text)
        if b"." in text:  # an attachment has none, and looking for one byte is free
            text = text.replace(b"\r\n.", b"\r\n")
        if self._at_start:
            self._at_start = False
            text = text[2:]
        self.size += len(text)
        if self.fate is Fate.GOOD and self.size > self._limit:
            self._give_up(Fate.TOO_LARGE, thrown_away=self.size - self._limit)
        elif self.fate is Fate.GOOD:
            self._write(text)
        else:
            self._thrown_away += len(text)

    def _write(self, text: bytes) -> None:
        self._sha256.update(text)
        try:
            self._make_room()
            self._file.write(text)
        except OSError:
            self._give_up(Fate.NO_SPACE, thrown_away=len(text))

    def _make_room(self) -> None:
        """Moves to a file where the mail has grown too large for memory, or there is no place for one as large."""
        if self._in_file or self.size <= self._memory:
            return
        if self.size <= self._room.size:
            self._has_place = self._has_place or self._room.take()
            if self._has_place:
                return
        self._in_file = True
        self._file.rollover()
        self._leave_place()

    def _leave_place(self) -> None:
        if self._has_place:
            self._has_place = False
            self._room.give_back()

    def _give_up(self, fate: Fate, *, thrown_away: int) -> None:
        self.fate = fate
        self._thrown_away = thrown_away
        self.close()


def canonical(text: bytes) -> bytes:
    """The text with CRLF at the end of each line, where CRLF, a bare CR and a bare LF each end one."""
    ends = text.count(b"\r\n")
    if text.count(b"\n") == ends and text.count(b"\r") == ends:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def is_room_for(size: int) -> bool:
    """Whether the place where mails are spooled has space for one of this many bytes, and for half of it more."""
    disk = os.statvfs(tempfile.gettempdir())
    return disk.f_bavail * disk.f_frsize >= size * 3 // 2
