"""The frames between `gateways.parser.pool` and its children; imported by both, so it imports next to nothing.

To a child: ``length, full`` and the raw mail. From a child: ``outcome, length of the head, length of the content``, the
head (a small JSON object that the parent reads) and the content (JSON that the parent passes on unread). Integers are
big-endian. A child's first frame says READY and has neither head nor content.
"""

import struct

REQUEST = struct.Struct("!IB")
REPLY = struct.Struct("!BII")

READY = 0
WHOLE = 1
CAUSES = ("time", "memory", "crashed", "depth", "parts", "headers", "boundary", "malformed")
"""Why a mail could not be read; its outcome in a frame is its place here + 2."""


def outcome_of(cause: str) -> int:
    """The number under which a cause travels."""
    return CAUSES.index(cause) + 2


def cause_of(outcome: int) -> str:
    """The cause that travelled under that number."""
    return CAUSES[outcome - 2]
