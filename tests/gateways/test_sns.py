"""Genuine messages of SNS are told from forged ones, and nothing is fetched for a message that can't be genuine."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from gateways.mail_in.sns import Refused, SnsVerifier
from gateways.mail_in.sns_http import Unreachable
from tests.support.sns_double import (
    CERTIFICATE_URL,
    HOST,
    NOW,
    TOPIC,
    CountingHttp,
    allowed,
    body,
    certificate,
    notification,
    pem,
    rsa_key,
    sign,
    subscription,
)

Message = dict[str, Any]
OTHER_TOPIC = "arn:aws:sns:eu-west-1:123456789012:other"


def verifier(http: CountingHttp | None = None, *arns: str) -> SnsVerifier:
    return SnsVerifier(allowed(*arns), http or CountingHttp(), now=lambda: NOW)


GENUINE = {
    "version 2": notification(),
    "version 1": notification(SignatureVersion="1"),
    "with a subject": notification(Subject="Amazon SES Email Receipt Notification"),
    "with a subject, version 1": notification(Subject="Grüße", SignatureVersion="1"),
    "with UTF-8": notification("Grüße, 你好, 🎉"),
    "with line ends and quotes": notification('{"a":\n "b\\n\\"c\\""}\r\n\ttext\u2028'),
    "empty": notification(""),
    "with lines that look like fields": notification("x\nMessageId\ny\nTimestamp\nz\nTopicArn\nw\nType\nNotification"),
    "with fields that aren't signed": notification() | {"MessageAttributes": {"a": {"Type": "String", "Value": "b"}}},
    "with an empty subject field": notification() | {"Subject": None},
    "a subscription": subscription(),
    "a subscription, version 2": subscription(SignatureVersion="2"),
    "an end of a subscription": subscription("UnsubscribeConfirmation"),
}


@pytest.mark.parametrize("what", GENUINE)
async def test_a_genuine_message_is_accepted(what: str) -> None:
    message = await verifier().verify(body(GENUINE[what]))
    assert message.Message == GENUINE[what]["Message"]
    assert message.MessageId == GENUINE[what]["MessageId"]


async def test_the_order_of_fields_and_escapes_do_not_matter() -> None:
    message = notification("Grüße\n", Subject="hi")
    turned = json.dumps(dict(reversed(message.items())), ensure_ascii=True, indent=3)
    assert (await verifier().verify(turned.encode())).Message == "Grüße\n"


def forged(change: Callable[[Message], Message], original: Message | None = None) -> Message:
    return change(dict(original or notification(Subject="hi")))


def with_(**fields: Any) -> Callable[[Message], Message]:
    return lambda message: message | fields


def without(*names: str) -> Callable[[Message], Message]:
    return lambda message: {name: value for name, value in message.items() if name not in names}


def tampered(signature: str, at: int) -> str:
    raw = bytearray(b64decode(signature))
    raw[at] ^= 1
    return b64encode(bytes(raw)).decode()


genuine = notification(Subject="hi")
plain = notification()
FORGED: dict[str, Message] = {
    "no signature": forged(without("Signature")),
    "empty signature": forged(with_(Signature="")),
    "null signature": forged(with_(Signature=None)),
    "number as signature": forged(with_(Signature=1)),
    "signature that is no base64": forged(with_(Signature="!!!!")),
    "short signature": forged(with_(Signature="QUJD")),
    "first bit of the signature flipped": forged(with_(Signature=tampered(genuine["Signature"], 0))),
    "last bit of the signature flipped": forged(with_(Signature=tampered(genuine["Signature"], -1))),
    "signature of zeros": forged(with_(Signature=b64encode(bytes(256)).decode())),
    "signature of another message": forged(with_(Signature=notification("other")["Signature"])),
    "signature of another key": sign(genuine, key=rsa_key("forger")),
    "signature with line ends": forged(with_(Signature=genuine["Signature"] + "\n")),
    "signature twice": forged(with_(Signature=genuine["Signature"] * 2)),
    "version 2 called 1": forged(with_(SignatureVersion="1")),
    "version 1 called 2": notification(SignatureVersion="1") | {"SignatureVersion": "2"},
    "version 3": forged(with_(SignatureVersion="3")),
    "version 0": forged(with_(SignatureVersion="0")),
    "version as a number": forged(with_(SignatureVersion=2)),
    "no version": forged(without("SignatureVersion")),
    "another text": forged(with_(Message="bye")),
    "text with one more space": forged(with_(Message="hello ")),
    "text with other line ends": notification("a\nb") | {"Message": "a\r\nb"},
    "text in another normal form": notification("é") | {"Message": "e\u0301"},
    "text as an object": forged(with_(Message={"a": 1})),
    "text as a list": forged(with_(Message=["hello"])),
    "no text": forged(without("Message")),
    "another id": forged(with_(MessageId="22b80b92-fdea-4c2c-8f9d-bdfb0c7bf325")),
    "id in upper case": forged(with_(MessageId=genuine["MessageId"].upper())),
    "no id": forged(without("MessageId")),
    "another subject": forged(with_(Subject="ho")),
    "subject taken away": forged(without("Subject")),
    "subject added": plain | {"Subject": "hi"},
    "empty subject added": plain | {"Subject": ""},
    "subject as a number": forged(with_(Subject=1)),
    "signed subject with a line end": notification(Subject="hi\nho"),
    "signed id with a line end": notification(MessageId="id\nSubject\nhi"),
    "subject that is another field": forged(with_(Subject="hi\nTimestamp\n2026-11-22T11:59:58.123Z")),
    "later time": forged(with_(Timestamp="2026-11-22T11:59:59.123Z")),
    "same time written otherwise": forged(with_(Timestamp="2026-11-22T11:59:58.123000Z")),
    "time with an offset": forged(with_(Timestamp="2026-11-22T11:59:58.123+00:00")),
    "time that is none": forged(with_(Timestamp="2026-13-45T99:99:99Z")),
    "time as a number": forged(with_(Timestamp=1795348798)),
    "no time": forged(without("Timestamp")),
    "another allowed topic": forged(with_(TopicArn=OTHER_TOPIC)),
    "topic with a line end": forged(with_(TopicArn=TOPIC + "\n")),
    "no topic": forged(without("TopicArn")),
    "notification called subscription": forged(with_(Type="SubscriptionConfirmation")),
    "notification with a token called subscription": forged(
        with_(Type="SubscriptionConfirmation", Token="abc", SubscribeURL=subscription()["SubscribeURL"])
    ),
    "subscription called notification": subscription() | {"Type": "Notification"},
    "end called subscription": subscription("UnsubscribeConfirmation") | {"Type": "SubscriptionConfirmation"},
    "subscription called end": subscription() | {"Type": "UnsubscribeConfirmation"},
    "unknown type": forged(with_(Type="Publish")),
    "type in lower case": forged(with_(Type="notification")),
    "no type": forged(without("Type")),
    "another token": subscription() | {"Token": "abc"},
    "another token in both places": subscription()
    | {"Token": "abc", "SubscribeURL": f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"},
    "no token": without("Token")(subscription()),
    "URL for another topic": subscription()
    | {"SubscribeURL": subscription()["SubscribeURL"].replace("mail-in", "other")},
    "URL written otherwise": subscription()
    | {"SubscribeURL": subscription()["SubscribeURL"].replace(TOPIC, TOPIC.replace(":", "%3A"))},
    "no URL": without("SubscribeURL")(subscription()),
    "message moved into the subject": notification("a\nSubject\nb") | {"Message": "a", "Subject": "b"},
    "fields in lower case": {name.lower(): value for name, value in genuine.items()},
    "certificate of another key": forged(with_(SigningCertURL=f"{HOST}/SimpleNotificationService-other.pem")),
    "certificate elsewhere": forged(with_(SigningCertURL=CERTIFICATE_URL.replace("amazonaws", "evil"))),
    "no certificate": forged(without("SigningCertURL")),
}


@pytest.mark.parametrize("what", FORGED)
async def test_a_forged_message_is_refused(what: str) -> None:
    http = CountingHttp()
    http.answers[f"{HOST}/SimpleNotificationService-other.pem"] = pem(certificate(key=rsa_key("other")))
    with pytest.raises(Refused) as refused:
        await verifier(http, TOPIC, OTHER_TOPIC).verify(body(FORGED[what]))
    assert refused.value.status in {400, 403}
    assert all(url.startswith(f"{HOST}/SimpleNotificationService-") for url in http.fetched)


def test_there_are_at_least_forty_forgeries() -> None:
    assert len(FORGED) >= 40


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"Notification"',
        b"{}",
        b"{" * 100_000,
        b'{"Type":' * 1000,
        b"\xff\xfe",
        b'{"Type": NaN}',
        b'{"Message": "\\ud800"}',
        b"<xml/>",
        body(notification())[:-1],
        body(notification()) + body(notification()),
        "\ufeff".encode() + body(notification()),
    ],
)
async def test_what_is_no_message_is_refused_without_repeating_it(raw: bytes) -> None:
    http = CountingHttp()
    with pytest.raises(Refused) as refused:
        await verifier(http).verify(raw)
    assert refused.value.status == 400
    assert refused.value.detail.startswith("This is no message of Amazon SNS")
    assert http.fetched == []


async def test_where_a_name_comes_twice_the_one_that_is_used_is_the_one_that_is_checked() -> None:
    message = body(notification()).decode()
    twice = message[:-1] + ', "Message": "evil"}'
    with pytest.raises(Refused, match="doesn't fit"):
        await verifier().verify(twice.encode())
    twice = '{"Message": "evil", ' + message[1:]
    assert (await verifier().verify(twice.encode())).Message == "hello"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (notification(TopicArn=OTHER_TOPIC), "sns_topic"),
        (notification(TopicArn=TOPIC.replace("123456789012", "210987654321")), "sns_topic"),
        (notification(TopicArn=TOPIC.replace("eu-west-1", "us-east-1")), "sns_topic"),
        (notification(TopicArn=TOPIC.upper()), "sns_topic"),
        (notification(SigningCertURL=CERTIFICATE_URL.replace("eu-west-1", "us-east-1")), "sns_certificate_url"),
        (notification(SigningCertURL="https://127.0.0.1/SimpleNotificationService-a.pem"), "sns_certificate_url"),
        (
            notification(SigningCertURL="https://sns.s3.amazonaws.com/SimpleNotificationService-a.pem"),
            "sns_certificate_url",
        ),
        (subscription(TopicArn=OTHER_TOPIC), "sns_topic"),
        (subscription(TopicArn=TOPIC.replace("eu-west-1", "us-east-1")), "sns_topic"),
        (subscription(SubscribeURL="http://127.0.0.1/"), "sns_subscribe_url"),
        (subscription(SubscribeURL="http://169.254.169.254/latest/meta-data/"), "sns_subscribe_url"),
        (subscription(SubscribeURL=f"{HOST}/?Action=DeleteTopic&TopicArn={TOPIC}&Token=a"), "sns_subscribe_url"),
        (subscription(Timestamp="2026-11-22T10:59:59.999Z"), "sns_time"),
        (notification(Timestamp="2026-11-22T10:59:59.999Z"), "sns_time"),
    ],
)
async def test_nothing_is_fetched_for_what_cannot_be_a_message_of_an_allowed_topic(message: Message, code: str) -> None:
    http = CountingHttp()
    with pytest.raises(Refused) as refused:
        await verifier(http).verify(body(message))
    assert refused.value.code == code
    assert http.fetched == []


async def test_without_allowed_topics_every_post_is_refused_with_the_setting_to_make() -> None:
    http = CountingHttp()
    with pytest.raises(Refused, match="POSTLEDGER_SNS_TOPICS") as refused:
        await SnsVerifier({}, http, now=lambda: NOW).verify(body(notification()))
    assert (refused.value.status, http.fetched) == (403, [])


@pytest.mark.parametrize(
    ("age", "answer"),
    [
        (timedelta(hours=1), None),
        (timedelta(hours=1, milliseconds=1), (400, "sns_time", None)),
        (timedelta(hours=2), (400, "sns_time", None)),
        (timedelta(days=4000), (400, "sns_time", None)),
        (timedelta(0), None),
        (-timedelta(minutes=5), None),
        (-timedelta(minutes=5, milliseconds=1), (503, "unavailable", 20)),
        (-timedelta(days=1), (503, "unavailable", 20)),
    ],
)
async def test_a_message_is_of_this_hour_to_the_millisecond(
    age: timedelta, answer: tuple[int, str, int | None] | None
) -> None:
    http = CountingHttp()
    message = notification(Timestamp=(NOW - age).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z")
    if answer is None:
        await verifier(http).verify(body(message))
        return
    with pytest.raises(Refused) as refused:
        await verifier(http).verify(body(message))
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == answer
    assert http.fetched == []


@pytest.mark.parametrize(
    "answer",
    [
        Unreachable("status 500"),
        b"<html>a proxy's page</html>",
        pem(certificate(since=NOW + timedelta(seconds=1))),
        pem(certificate(until=NOW - timedelta(seconds=1))),
    ],
    ids=["unreachable", "unreadable", "of tomorrow", "of yesterday"],
)
async def test_a_certificate_that_cannot_be_used_now_is_a_matter_of_trying_again(answer: bytes | Unreachable) -> None:
    http = CountingHttp({CERTIFICATE_URL: answer})
    with pytest.raises(Refused) as refused:
        await verifier(http).verify(body(notification()))
    assert (refused.value.status, refused.value.retry_after) == (503, 20)


async def test_a_certificate_that_sns_would_not_sign_with_is_refused_for_good() -> None:
    http = CountingHttp({CERTIFICATE_URL: pem(certificate("evil.com"))})
    with pytest.raises(Refused) as refused:
        await verifier(http).verify(body(notification()))
    assert (refused.value.status, refused.value.code) == (403, "sns_certificate")


async def test_a_subscription_is_confirmed_at_its_own_url() -> None:
    http = CountingHttp()
    sns = verifier(http)
    message = await sns.verify(body(subscription()))
    assert message.SubscribeURL is not None
    http.answers[message.SubscribeURL] = b"<ConfirmSubscriptionResponse/>"
    await sns.confirm(message)
    assert http.fetched == [CERTIFICATE_URL, subscription()["SubscribeURL"]]


async def test_a_confirmation_that_fails_is_tried_again() -> None:
    sns = verifier()
    with pytest.raises(Refused) as refused:
        await sns.confirm(await sns.verify(body(subscription())))
    assert refused.value.status == 503
