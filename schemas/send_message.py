"""What a caller asked to be sent, as it is sealed into `SendRequested.message`, or into a blob where it is large."""

from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import TypeAdapter

#: Bytes of the JSON up to which it stands in the event itself; what is longer goes into a blob.
MOST_IN_EVENT: Final = 196_608
BLOB_FIELD: Final = "message"


@dataclass(frozen=True, slots=True)
class Person:
    """An address, and the name to be shown with it, which may be empty."""

    email: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """An attachment as it was when the send was asked for: its name, media type and size, and the blob of its bytes."""

    id: str
    name: str
    contentType: str  # noqa: N815 - as the API says it
    size: int
    blob: str


@dataclass(frozen=True, slots=True)
class SendMessage:
    """`body` is what the caller gave, in `bodyFormat`; `text` the plain alternative, made from HTML where there was none."""

    subject: str
    body: str
    bodyFormat: Literal["html", "text"]  # noqa: N815 - as the API says it
    text: str
    to: list[Person]
    cc: list[Person] = field(default_factory=list)
    bcc: list[Person] = field(default_factory=list)
    replyTo: list[Person] = field(default_factory=list)  # noqa: N815 - as the API says it
    headers: dict[str, str] = field(default_factory=dict)
    threadId: str | None = None  # noqa: N815 - as the API says it
    fromName: str = ""  # noqa: N815 - as its neighbours
    attachments: list[File] = field(default_factory=list)


MESSAGE: Final = TypeAdapter(SendMessage)
