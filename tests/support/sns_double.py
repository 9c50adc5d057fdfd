"""Amazon SNS as far as we meet it: an authority, certificates, signed messages, and an HTTP that counts.

Hosts and URLs are the real ones; nothing in the product is told that this is a test. What is injected is the transport.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateways.mail_in.door import Envelope, Inbox, Spooled, Unavailable
from gateways.mail_in.sns_http import Unreachable
from gateways.mail_in.sns_topics import Topic

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail-in"
HOST = "https://sns.eu-west-1.amazonaws.com"
CERTIFICATE_URL = f"{HOST}/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key for each name and test run; the name is only there to tell them apart."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def certificate(
    common_name: str = "sns.amazonaws.com",
    *,
    key: PrivateKey | None = None,
    issuer: str = "Amazon RSA 2048 M01",
    issuer_key: PrivateKey | None = None,
    dns: tuple[str, ...] | None = None,
    since: datetime = NOW - timedelta(days=100),
    until: datetime = NOW + timedelta(days=100),
    ca: bool | None = None,
) -> x509.Certificate:
    """A certificate as SNS serves it, unless told otherwise."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(issuer))
        .public_key((key or rsa_key("sns")).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )
    if dns is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns])
        builder = builder.add_extension(names, critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(issuer_key or rsa_key("authority"), SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def string_to_sign(message: dict[str, Any]) -> bytes:
    """As the SNS Developer Guide writes it, independently of the product's own."""
    if message["Type"] == "Notification":
        names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    else:
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    return "".join(f"{name}\n{message[name]}\n" for name in names if name in message).encode()


def sign(message: dict[str, Any], *, key: rsa.RSAPrivateKey | None = None) -> dict[str, Any]:
    """The message with a genuine signature of its version."""
    algorithm = SHA1() if message["SignatureVersion"] == "1" else SHA256()
    signature = (key or rsa_key("sns")).sign(string_to_sign(message), PKCS1v15(), algorithm)
    return message | {"Signature": b64encode(signature).decode()}


def notification(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A signed notification; fields replace those of an ordinary one before it is signed."""
    message = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": text,
        "Timestamp": "2026-11-22T11:59:58.123Z",
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": f"{HOST}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:c9135db0-26c4-47ec-8998-413945fb5a96",
    }
    return sign(message | fields)


def subscription(kind: str = "SubscriptionConfirmation", **fields: Any) -> dict[str, Any]:
    """A signed message that offers a subscription."""
    message = {
        "Type": kind,
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "Token": "2336412f37fb687f5d51e6e241d09c80",
        "TopicArn": TOPIC,
        "Message": "You have chosen to subscribe to the topic.\nTo confirm, visit the SubscribeURL.",
        "SubscribeURL": f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37fb687f5d51e6e241d09c80",
        "Timestamp": "2026-11-22T11:59:58.123Z",
        "SignatureVersion": "1",
        "SigningCertURL": CERTIFICATE_URL,
    }
    return sign(message | fields)


def body(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def ses_notification(
    raw: bytes = b"Subject: hi\r\n\r\nhello\r\n",
    to: tuple[str, ...] = ("known@inbox.test",),
    *,
    action: dict[str, Any] | None = None,
    source: str = "sender@example.com",
    **fields: Any,
) -> str:
    """What SES publishes about a received mail, in the form of its developer guide."""
    verdict = {"status": "FAIL"}
    said = {
        "notificationType": "Received",
        "receipt": {
            "timestamp": "2026-11-22T11:59:57.000Z",
            "processingTimeMillis": 222,
            "recipients": list(to),
            "spamVerdict": verdict,
            "virusVerdict": verdict,
            "action": action or {"type": "SNS", "topicArn": TOPIC, "encoding": "BASE64"},
        },
        "mail": {
            "timestamp": "2026-11-22T11:59:57.000Z",
            "source": source,
            "messageId": "d6iitobk75ur44p8kdnnp7g2n800",
            "destination": ["header-only@inbox.test"],
            "headersTruncated": False,
            "headers": [{"name": "To", "value": "header-only@inbox.test"}],
            "commonHeaders": {"to": ["header-only@inbox.test"]},
        },
    }
    if action is None:
        said["content"] = b64encode(raw).decode()
    return json.dumps(said | fields)


@dataclass
class CountingHttp:
    """Answers with what it holds, counts every request, and knows nothing else."""

    answers: dict[str, bytes | Unreachable] = field(default_factory=lambda: {CERTIFICATE_URL: pem(certificate())})
    fetched: list[str] = field(default_factory=list)

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        answer = self.answers.get(url, Unreachable("status 404"))
        if isinstance(answer, Unreachable):
            raise answer
        return answer


@dataclass
class RecordingDoor:
    """Keeps what is delivered to it; `known` are the addresses that have a mailbox. `fails` is raised by the next deliver."""

    known: dict[str, str] = field(default_factory=lambda: {"known@inbox.test": "mbx_1"})
    kept: list[tuple[bytes, Spooled, list[tuple[Inbox, Envelope]]]] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    find_fails: Exception | None = None
    deliver_fails: Exception | None = None
    fails_after_keeping: bool = False

    async def find(self, address: str) -> Inbox | None:
        self.looked_up.append(address)
        if self.find_fails is not None:
            raise self.find_fails
        mailbox = self.known.get(address.strip().lower())
        return None if mailbox is None else Inbox(mailbox=mailbox, owner="own_1", data_key=bytes(32))

    async def deliver(self, mail: Spooled, to: list[tuple[Inbox, Envelope]]) -> None:
        failure, self.deliver_fails = self.deliver_fails, None
        if failure is not None and not self.fails_after_keeping:
            raise failure
        await asyncio.sleep(0)  # as a log does, it lets others run before it has the mail
        self.kept.append((mail.file.read(), mail, to))
        if failure is not None:
            raise failure


class NoBucket:
    """For tests in which no bucket may be read."""

    async def fetch(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        raise Unavailable(f"No bucket {bucket} here.")
        yield b""


def allowed(*arns: str) -> dict[str, Topic]:
    return {arn: Topic.parse(arn) for arn in arns or (TOPIC,)}
