"""The shapes of sends, as `/openapi.json` shows them.

They document. What is sent is made from rows directly, and the tests hold the two together.
"""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from domain.connection_events import Provider
from gateways.http.v1.attachment_shapes import ATTACHMENT
from gateways.http.v1.operation_shapes import SEND
from gateways.http.v1.send_bodies import FARTHEST, HEADER_CHARACTERS, MOST_HEADERS, SUBJECT_CHARACTERS
from gateways.http.v1.send_people import MOST_RECIPIENTS, MOST_REPLY_TO, NAME_CHARACTERS
from gateways.http.v1.shapes import AT, CONNECTION, USER, shown

GRACE: Final[dict[str, Any]] = {"email": "grace@example.org", "name": "Grace Hopper"}
Status = Literal[
    "queued", "scheduled", "sending", "deferred", "sent", "failed", "cancelled", "uncertain", "dead_lettered"
]
A_REQUEST: Final[dict[str, Any]] = {
    "userId": USER,
    "providerPreference": "gmail",
    "idempotencyKey": "order-4711-shipped",
    "subject": "Your order is on its way",
    "body": "<p>It left today.</p>",
    "bodyFormat": "html",
    "to": ["Grace Hopper <grace@example.org>"],
    "cc": [{"email": "ada@example.org", "name": "Ada Lovelace"}],
    "attachments": [ATTACHMENT],
}
AN_ATTEMPT: Final[dict[str, Any]] = {
    "number": 1,
    "startedAt": AT,
    "endedAt": AT,
    "outcome": "accepted",
    "code": None,
    "cause": None,
    "detail": None,
    "counted": True,
    "refused": [],
}
A_SEND: Final[dict[str, Any]] = {
    "id": SEND,
    "userId": USER,
    "status": "sent",
    "code": None,
    "cause": None,
    "connectionId": CONNECTION,
    "provider": "gmail",
    "subject": "Your order is on its way",
    "to": [GRACE],
    "cc": [],
    "bcc": [],
    "createdAt": AT,
    "scheduledAt": None,
    "sentAt": AT,
    "nextAttemptAt": None,
    "providerMessageId": "18f0c2a4b6d8e0f1",
    "threadId": "18f0c2a4b6d8e0f1",
    "attempts": [AN_ATTEMPT],
}
A_FILE: Final[dict[str, Any]] = {
    "id": ATTACHMENT,
    "name": "invoice.pdf",
    "size": 48_213,
    "contentType": "application/pdf",
    "url": f"https://mail.example.org/v1/attachments/{ATTACHMENT}/content?expires=1773415800&signature=c2lnbmF0dXJl",
    "expiresAt": AT,
}
A_RAW: Final[dict[str, Any]] = {
    "subject": "Your order is on its way",
    "body": "<p>It left today.</p>",
    "bodyFormat": "html",
    "text": "It left today.",
    "headers": {},
    "attachments": [A_FILE],
}


class Recipient(BaseModel):
    """An address, with the name that is shown beside it."""

    model_config = shown(GRACE)

    email: str
    name: str | None = Field(default=None, max_length=NAME_CHARACTERS)


class NamedFile(BaseModel):
    """An attachment."""

    model_config = shown({"id": ATTACHMENT}, closed=True)

    id: str


class UploadedFile(BaseModel):
    """An attachment, by the other name that its upload has for its id."""

    model_config = shown({"attachmentId": ATTACHMENT}, closed=True)

    attachment_id: str


People = list[str | Recipient] | str | Recipient


class NewSend(BaseModel):
    """A mail, and whose it is. Recipients are `ada@example.org`, `Ada <ada@example.org>`, or an object."""

    model_config = shown(A_REQUEST, closed=True)

    user_id: str = Field(description="Whose mailbox it goes out by.")
    provider_preference: Provider | None = Field(
        default=None, description="Another connection is used where there is no active one of this provider."
    )
    connection_id: str | None = Field(default=None, description="By this connection only.")
    idempotency_key: str | None = Field(
        default=None, description="As the header `Idempotency-Key`.", min_length=1, max_length=255
    )
    subject: str = Field(max_length=SUBJECT_CHARACTERS)
    body: str
    body_format: Literal["html", "text"]
    text: str | None = Field(default=None, description="Beside HTML; made of it where missing.")
    to: People | None = Field(
        default=None, description=f"With `cc` and `bcc` 1 to {MOST_RECIPIENTS}, repetitions counted once."
    )
    cc: People | None = None
    bcc: People | None = None
    reply_to: People | None = Field(default=None, description=f"At most {MOST_REPLY_TO}.")
    headers: dict[str, str] | None = Field(
        default=None,
        description=f"Further header fields: at most {MOST_HEADERS}, each of 1 to {HEADER_CHARACTERS} characters.",
    )
    thread_id: str | None = Field(default=None, description="The provider's id of a conversation, where it has such.")
    attachments: list[str | NamedFile | UploadedFile] | None = Field(
        default=None, description="Of the user, each named once."
    )
    scheduled_at: datetime | None = Field(
        default=None, description=f"When to send it, with an offset; at most {FARTHEST.days} days ahead."
    )
    callback_url: str | None = Field(default=None, description="Is told what becomes of it; `https`.", max_length=2048)


class Queued(BaseModel):
    """A mail that is on its way."""

    model_config = shown({"messageId": SEND, "status": "queued"})

    message_id: str
    status: Status


class NewSchedule(BaseModel):
    """When to send it instead."""

    model_config = shown({"scheduledAt": AT}, closed=True)

    scheduled_at: datetime = Field(description="With an offset.")


class RefusedRecipient(BaseModel):
    """Somebody whom the provider did not take. `code` is SMTP's reply code, `status` the enhanced one."""

    model_config = shown({"email": "nobody@example.org", "code": 550, "status": "5.1.1"})

    email: str
    code: int
    status: str | None


class Attempt(BaseModel):
    """One attempt to send it. `cause` explains the code, `detail` is what the provider said of it."""

    model_config = shown(AN_ATTEMPT)

    number: int
    started_at: datetime
    ended_at: datetime | None
    outcome: Literal["running", "accepted", "deferred", "in_doubt", "failed"]
    code: str | None
    cause: str | None
    detail: str | None
    counted: bool | None = Field(description="Whether it is one of the five; waits that a provider asks for are not.")
    refused: list[RefusedRecipient]


class Send(BaseModel):
    """A mail that was asked to be sent, and what has become of it. `cause` explains `code`, where there is one."""

    model_config = shown(A_SEND)

    id: str
    user_id: str
    status: Status
    code: str | None
    cause: str | None
    connection_id: str | None
    provider: Provider | None
    subject: str
    to: list[Recipient]
    cc: list[Recipient]
    bcc: list[Recipient]
    created_at: datetime
    scheduled_at: datetime | None
    sent_at: datetime | None
    next_attempt_at: datetime | None
    provider_message_id: str | None
    thread_id: str | None
    attempts: list[Attempt]


class Sends(BaseModel):
    """A page of sends, the newest first; `nextCursor` is null on the last one."""

    model_config = shown({"items": [A_SEND], "nextCursor": None})

    items: list[Send]
    next_cursor: str | None


class SentFile(BaseModel):
    """An attachment as it was when the mail was asked for; `url` needs no credentials until it expires."""

    model_config = shown(A_FILE)

    id: str
    name: str
    size: int
    content_type: str
    url: str
    expires_at: datetime


class RawSend(BaseModel):
    """What was asked to be sent."""

    model_config = shown(A_RAW)

    subject: str
    body: str
    body_format: Literal["html", "text"]
    text: str
    headers: dict[str, str]
    attachments: list[SentFile]
