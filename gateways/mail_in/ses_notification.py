"""What SES says about a mail it received.

The source is the SES Developer Guide, "Contents of notifications for Amazon SES email receiving".
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from gateways.mail_in.sns import Refused

SET_UP = "AMAZON_SES_SETUP_NOTIFICATION"

# 320 is the longest address of RFC 5321 4.5.3.1; SES lets a mail have 100 recipients, and so do we.
_Address = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)]
_CAMEL = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")


class _Kind(BaseModel):
    model_config = _CAMEL
    notification_type: str = ""


class Action(BaseModel):
    """What a receipt rule did with the mail."""

    model_config = _CAMEL
    type: str
    encoding: str = "UTF-8"
    bucket_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    object_key: Annotated[str, Field(min_length=1, max_length=1024)] | None = None


class Receipt(BaseModel):
    """`recipients` are those RCPT TO addresses that the receipt rule was about."""

    model_config = _CAMEL
    recipients: Annotated[list[_Address], Field(max_length=100)]
    action: Action


class SesMail(BaseModel):
    """`source` is the address of MAIL FROM; `message_id` is SES's own name for the mail."""

    model_config = _CAMEL
    source: _Address
    message_id: Annotated[str, Field(max_length=1000)]


class Received(BaseModel):
    """A mail that SES received: in `content`, or in the bucket that the action names."""

    model_config = _CAMEL
    notification_type: Literal["Received"]
    receipt: Receipt
    mail: SesMail
    content: str | None = None

    @model_validator(mode="after")
    def _has_a_mail(self) -> Self:
        action = self.receipt.action
        in_bucket = action.bucket_name is not None and action.object_key is not None
        if (action.type == "S3" and not in_bucket) or (action.type == "SNS" and self.content is None):
            raise ValueError("a mail is missing")
        return self


def received_in(text: str) -> Received | None:
    """The mail that a message of SNS tells of; None where it is about something else.

    Something else are tests of SES itself, bounces and other reports, and actions that keep no copy of the mail.
    Raises Refused for a mail that isn't described as SES does it.
    """
    try:
        kind = _Kind.model_validate_json(text)
    except ValidationError:
        return None
    if kind.notification_type != "Received":
        return None
    try:
        received = Received.model_validate_json(text)
    except ValidationError:
        raise Refused(422, "ses_notification", "This is no notification of SES about a received mail.") from None
    tells_of_mail = received.receipt.action.type in {"S3", "SNS"} and received.mail.message_id != SET_UP
    return received if tells_of_mail else None
