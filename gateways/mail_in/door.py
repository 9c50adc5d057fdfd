"""The one door behind every way mail comes in: who is it for, and the promise that it is kept.

`smtp.py` and `ses.py` speak their protocols and know nothing of the log; both ask a `Door`.
"""

from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol


class Unavailable(Exception):
    """Our own look-up or log can't answer. `str(error)` may be shown to anybody; try again after `retry_after` seconds."""

    def __init__(self, sentence: str, *, retry_after: int = 5) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Inbox:
    """An open mailbox that was found for a recipient: everything that is needed to keep a mail for it."""

    mailbox: str
    owner: str
    data_key: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was said around a mail (RFC 5321 2.3.1), for one recipient.

    `delivery` is the deliverer's own id of the mail, where it has one that stays the same when it delivers again: it stands
    in for a Message-ID that is missing.
    """

    sender: str
    recipient: str
    helo: str
    client: str
    tls: bool
    via: Literal["smtp", "ses"]
    delivery: str = ""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A mail as it came, whole, in memory or in an unnamed file: `size` in bytes, `sha256` in hex, `file` at its start."""

    file: BinaryIO
    size: int
    sha256: str


class Door(Protocol):
    """What `smtp.py` and `ses.py` need of the house."""

    async def find(self, address: str) -> Inbox | None:
        """The open mailbox at this address (any case, trimmed); None where it is known to be unknown, foreign or ended.

        Raises Unavailable where that can't be known now.
        """

    async def deliver(self, mail: Spooled, to: list[tuple[Inbox, Envelope]]) -> None:
        """Returns once every recipient's record is in the log for good. Raises Unavailable where that can't be promised."""
