"""Work on sends: what stands in `deliver.*` and, while it waits for its time, in `retry.*`.

A record is an order to look after one send, not a fact: it may be lost, repeated or late, and whoever takes it asks the
decider of sends first. `due` is when it may be worked off; before that it waits in a tier.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.connection_events import Provider
from domain.fields import Digest
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class DeliverSend:
    """Try this send by this connection. `mailbox`: the digest of its address, whose limits are shared, but by SMTP."""

    send: str
    user: str
    connection: str
    provider: Provider
    mailbox: Digest
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class LookForSend:
    """Ask the provider what became of an attempt in doubt. `number` counts the looks from 0, the first was due at `first`.

    `absent`: the look before has found it not sent.
    """

    send: str
    user: str
    connection: str
    provider: Provider
    mailbox: Digest
    attempt: int
    message_id: str
    number: int
    first: datetime
    due: datetime | None = None
    draft: str | None = None
    draft_message: str | None = None
    absent: bool = False


Work = DeliverSend | LookForSend


def limited_by(work: Work) -> str:
    """What limits and pauses go by: the mailbox, whoever has connected it; by SMTP the connection.

    Whose address a mailbox at somebody's own server has is only what they say, so it must not hold up another's.
    """
    return work.connection if work.provider == "smtp" else work.mailbox


WORK: Final = Vocabulary("work", (DeliverSend, LookForSend))
