"""Messages of Amazon SNS: is this one really from a topic of ours, and from now?

Checks stand in the order of what they cost and of what they give away. Reading the message, the topic's allow-list, the
hosts of its URLs and its time come first and need no network; only then is a certificate fetched, and only from the
topic's own host; the signature comes last. Nothing of a message has any effect before its signature holds, and nothing is
used that the signature doesn't cover: the fields below are the signed ones and no others (the HTTP headers of SNS repeat
some of them, unsigned, and are not read).

The string to sign is the names and values of the fields, one a line, so a value with line ends could pass for other
fields. Only `Message` may have them; every other field is held to a form without.

A wrong message is refused for good (`4xx`: SNS gives up, or moves it to the subscription's dead-letter queue). What we
can't judge now is refused for the moment (`503`: SNS tries again for up to an hour): without a readable certificate, or by a
clock of ours that may be wrong.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateways.mail_in.sns_certificates import CertificateRefused, Certificates, CertificateUnreachable, utc_now
from gateways.mail_in.sns_http import Fetches, Unreachable
from gateways.mail_in.sns_topics import Topic, confirms, is_certificate_of

OLDEST = timedelta(hours=1)
MOST_AHEAD = timedelta(minutes=5)

_OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f\u0085\u2028\u2029]*$", max_length=2048)]
_SIGNED: Mapping[str, tuple[str, ...]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
# Version 1 is what topics sign with unless told otherwise. Forging it would need a second preimage of SHA-1.
_HASHES: Mapping[str, HashAlgorithm] = {"1": SHA1(), "2": SHA256()}  # noqa: S303  # the algorithm is not ours to choose


class Refused(Exception):
    """A post that is answered with a problem: `detail` is a sentence for anybody, `code` is for machines."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


class SnsMessage(BaseModel):
    """The signed fields of a message as SNS posts it; names are those of SNS."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    Type: Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
    Message: str
    MessageId: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    Subject: _OneLine | None = None
    SubscribeURL: _OneLine | None = None
    Timestamp: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$")]
    Token: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,1024}$")] | None = None
    TopicArn: _OneLine
    SignatureVersion: Literal["1", "2"]
    Signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{1,1500}={0,2}$")]
    SigningCertURL: _OneLine

    def string_to_sign(self) -> bytes:
        """Names and values of the signed fields that are there, in the order of their names, each on a line of its own."""
        values = {name: getattr(self, name) for name in _SIGNED[self.Type]}
        return "".join(f"{name}\n{value}\n" for name, value in values.items() if value is not None).encode()


class SnsVerifier:
    """Tells genuine messages of allowed topics from all others, and confirms subscriptions.

    `topics` are the allowed ones by ARN (`sns_topics.topics` reads them from the setting); with none, every post is refused.
    """

    def __init__(self, topics: Mapping[str, Topic], http: Fetches, *, now: Callable[[], datetime] = utc_now) -> None:
        self._topics = dict(topics)
        self._http = http
        self._now = now
        self._certificates = Certificates(http, now=now)

    async def verify(self, body: bytes) -> SnsMessage:
        """The message in a post's body, once it is known to be genuine and of this hour. Raises Refused."""
        if not self._topics:
            raise Refused(
                403, "sns_not_set_up", "No topic is allowed to post here: set POSTLEDGER_SNS_TOPICS to the topic's ARN."
            )
        message = _read(body)
        topic = self._topic_of(message)
        self._check_time(message)
        key = await self._key(message, topic)
        if not signature_holds(message, key):
            raise Refused(403, "sns_signature", "The signature of this message doesn't fit it.")
        return message

    async def confirm(self, message: SnsMessage) -> None:
        """Confirms the subscription that a verified message offers. Raises Refused."""
        try:
            await self._http.fetch(message.SubscribeURL or "")
        except Unreachable as error:
            raise Refused(
                503, "sns_unreachable", f"The subscription can't be confirmed now: {error}.", retry_after=20
            ) from error

    def _topic_of(self, message: SnsMessage) -> Topic:
        topic = self._topics.get(message.TopicArn)
        if topic is None:
            raise Refused(403, "sns_topic", "This topic isn't among those that POSTLEDGER_SNS_TOPICS allows.")
        if not is_certificate_of(topic, message.SigningCertURL):
            raise Refused(403, "sns_certificate_url", "SigningCertURL is no certificate of SNS in the topic's region.")
        if message.Type == "SubscriptionConfirmation" and not confirms(
            topic, message.Token or "", message.SubscribeURL or ""
        ):
            raise Refused(403, "sns_subscribe_url", "SubscribeURL doesn't confirm this topic's subscription.")
        return topic

    def _check_time(self, message: SnsMessage) -> None:
        try:
            age = self._now() - datetime.fromisoformat(message.Timestamp)
        except ValueError:
            raise Refused(400, "sns_message", "Timestamp is no time.") from None
        if age > OLDEST:
            raise Refused(400, "sns_time", "The message is older than an hour.")
        if age < -MOST_AHEAD:
            # If it is genuine, our clock is slow: no mail may be lost for that.
            raise Refused(503, "unavailable", "The message is ahead of the clock of this machine.", retry_after=20)

    async def _key(self, message: SnsMessage, topic: Topic) -> RSAPublicKey:
        try:
            return await self._certificates.key(message.SigningCertURL, topic)
        except CertificateRefused as error:
            raise Refused(403, "sns_certificate", str(error)) from error
        except CertificateUnreachable as error:
            raise Refused(503, "sns_unreachable", str(error), retry_after=20) from error


def signature_holds(message: SnsMessage, key: RSAPublicKey) -> bool:
    """Whether the key made the message's signature (RSASSA-PKCS1-v1_5, RFC 8017 8.2) over its string to sign."""
    try:
        signature = b64decode(message.Signature, validate=True)
        key.verify(signature, message.string_to_sign(), PKCS1v15(), _HASHES[message.SignatureVersion])
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(body: bytes) -> SnsMessage:
    try:
        return SnsMessage.model_validate_json(body)
    except ValidationError as error:
        where = ", ".join(sorted({str(part["loc"][0]) for part in error.errors(include_input=False) if part["loc"]}))
        hint = f": see {where}" if where else ""
        raise Refused(400, "sns_message", f"This is no message of Amazon SNS{hint}.") from None
