"""The shapes of the temporary inboxes, as `/openapi.json` shows them.

They document. What is sent is made from rows directly, and the tests hold the two together.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ADDRESS = "swift-river-7k2p9xq4@mail.example"
MESSAGE = "msg_01jnqrstvwxyz0123456789abc"
AT = "2026-03-13T15:30:00.000+00:00"


def example(**members: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": members})


class NewMailbox(BaseModel):
    """A mailbox that receives from this instant. The session token is shown once."""

    model_config = example(address=ADDRESS, expires_at=AT, session_token="uct_…")  # noqa: S106 - an example

    address: str
    expires_at: datetime
    session_token: str


class Extended(BaseModel):
    """When a mailbox ends now; later than asked for is silently capped by its plan."""

    model_config = example(address=ADDRESS, expires_at=AT)

    address: str
    expires_at: datetime


class Mailbox(BaseModel):
    """An open mailbox."""

    model_config = example(address=ADDRESS, expires_at=AT, created_at=AT)

    address: str
    expires_at: datetime
    created_at: datetime


class ListedMessage(BaseModel):
    """A message as lists show it."""

    model_config = example(
        id=MESSAGE,
        from_address="shop@example.org",
        subject="Your code is 481516",
        received_at=AT,
        is_read=False,
        has_attachments=False,
    )

    id: str
    from_address: str | None = Field(description="The header's, or the envelope's where the header has none.")
    subject: str | None
    received_at: datetime
    is_read: bool
    has_attachments: bool


class Attachment(BaseModel):
    """One attachment: `index` from 0, `size` in bytes, `sha256` in hex; `filename` is what the sender wrote, no path."""

    model_config = example(
        index=0, filename="invoice.pdf", content_type="application/pdf", size=48213, content_id=None, sha256="9f86d0…"
    )

    index: int
    filename: str
    content_type: str
    size: int
    content_id: str | None
    sha256: str


class Message(BaseModel):
    """A whole message. `state` is `unparsed` where it could not be read: then only its raw form tells more."""

    model_config = example(
        id=MESSAGE,
        from_address="shop@example.org",
        from_name="Shop",
        to_address=ADDRESS,
        to=[ADDRESS],
        cc=[],
        reply_to=[],
        subject="Your code is 481516",
        received_at=AT,
        is_read=True,
        state="whole",
        body_text="Your code is 481516.",
        body_html=None,
        headers={"subject": ["Your code is 481516"]},
        attachments=[],
    )

    id: str
    from_address: str | None
    from_name: str | None
    to_address: str = Field(description="Whom the envelope named: the mailbox.")
    to: list[str]
    cc: list[str]
    reply_to: list[str]
    subject: str | None
    received_at: datetime
    is_read: bool = Field(description="True: reading it made it so.")
    state: str
    body_text: str | None
    body_html: str | None = Field(description="As the sender wrote it: never show it in a page of your own.")
    headers: dict[str, list[str]]
    attachments: list[Attachment]


class ProblemFault(BaseModel):
    """One thing that is wrong: a JSON Pointer and a sentence."""

    model_config = example(pointer="/query/limit", message="`limit` has to be 1 or more.")

    pointer: str
    message: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457). `code` is stable; `/docs/problems` lists every code."""

    model_config = example(
        type="/docs/problems#invalid_request",
        title="The request is not valid",
        status=422,
        detail="`limit` has to be 1 or more.",
        instance=f"/api/v1/mailboxes/{ADDRESS}/messages",
        code="invalid_request",
        request_id="req_01jnqrstvwxyz0123456789abc",
        errors=[{"pointer": "/query/limit", "message": "`limit` has to be 1 or more."}],
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[ProblemFault] = Field(default_factory=list)
    limit: int | None = Field(default=None, description="With `plan_limit_mailboxes`: how many may be live.")
    used: int | None = Field(default=None, description="With `plan_limit_mailboxes`: how many are.")
    user_id: str | None = Field(
        default=None, alias="userId", description="With `email_taken` and `external_id_taken`: the user who has it."
    )
