"""A mail as somebody asked us to send it, ready to be handed to a provider: opened, and never written down like this.

`repr` shows ids only: it may end in a log line.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from domain.tokens import Secrets

#: Names the send in the mail itself. Providers keep it where they replace the Message-ID.
MARKER: Final = "X-Postledger-Marker"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name shown beside it, which may be empty (RFC 5322 3.4)."""

    address: str = field(repr=False)
    name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """An attachment: a file name, a media type (`text/plain; charset=utf-8`), and its bytes."""

    name: str = field(repr=False)
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """One mail. `message_id` is with its angle brackets, the same in every attempt; `marker` is the value of MARKER.

    Recipients are counted `to`, `cc`, `bcc` in this order, from 0. `html` may be missing, `text` never is. `thread_id` is the
    provider's name of a conversation that it belongs to; `headers` are the caller's own, by name.
    """

    message_id: str
    marker: str
    date: datetime
    sender: Mailbox
    to: list[Mailbox]
    cc: list[Mailbox]
    bcc: list[Mailbox]
    reply_to: list[Mailbox]
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    attachments: list[OutgoingFile] = field(default_factory=list)
    thread_id: str | None = None

    @property
    def recipients(self) -> list[Mailbox]:
        return [*self.to, *self.cc, *self.bcc]

    @property
    def length(self) -> int:
        """About how much there is of it: characters of its texts and bytes of its files."""
        return len(self.text) + len(self.html or "") + sum(len(file.content) for file in self.attachments)


@dataclass(frozen=True, slots=True)
class Access:
    """What a provider is called with: the mailbox's own address, what was granted, and a token or passwords."""

    connection: str
    address: str = field(repr=False)
    scopes: list[str]
    secrets: Secrets


@dataclass(frozen=True, slots=True)
class Traces:
    """What is on record of earlier attempts at one send: what a provider can be asked about.

    `draft` is the provider's id of the draft, `transmitted` whether bytes that send it may have left without one. `earlier`:
    there were attempts before this one, so a draft may be there that is on no record. `last`: there will be none after it.
    """

    message_id: str
    marker: str
    draft: str | None = None
    draft_message: str | None = None
    transmitted: bool = False
    earlier: bool = False
    last: bool = False
