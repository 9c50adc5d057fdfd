"""`POST /api/v1/ses/inbound` over real HTTP: what becomes of a mail, and what each answer promises."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from gateways.http.ses_inbound import MAX_BODY
from gateways.mail_in.door import Envelope, Unavailable
from tests.support.ses_endpoint import MAIL, Endpoint, problem
from tests.support.sns_double import TOPIC, notification, ses_notification, subscription


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint().served() as endpoint:
        yield endpoint


async def test_a_mail_in_the_notification_is_delivered_as_it_came(endpoint: Endpoint) -> None:
    answer = await endpoint.post(notification(ses_notification(MAIL, ("Known@Inbox.test",))))
    assert (answer.status, answer.headers["Content-Length"]) == (200, "0")
    [(kept, spooled, to)] = endpoint.door.kept
    assert kept == MAIL
    assert (spooled.size, spooled.sha256) == (len(MAIL), sha256(MAIL).hexdigest())
    [(inbox, envelope)] = to
    assert inbox.mailbox == "mbx_1"
    assert envelope == Envelope(
        "sender@example.com",
        "Known@Inbox.test",
        helo="",
        client="",
        tls=False,
        via="ses",
        delivery="d6iitobk75ur44p8kdnnp7g2n800",
    )


async def test_a_mail_as_text_is_delivered_as_utf_8(endpoint: Endpoint) -> None:
    for encoding in ({"encoding": "UTF-8"}, {"encoding": "UTF8"}, {}):
        text = ses_notification(
            action={"type": "SNS", "topicArn": TOPIC, **encoding}, content="Subject: Grüße\n\n你好\r"
        )
        answer = await endpoint.post(notification(text, MessageId=str(len(endpoint.door.kept))))
        assert answer.status == 200
    assert [kept for kept, _, _ in endpoint.door.kept] == ["Subject: Grüße\r\n\r\n你好\r\n".encode()] * 3


async def test_every_line_end_becomes_crlf(endpoint: Endpoint) -> None:
    await endpoint.post(notification(ses_notification(b"Subject: a\nX: b\r\rc\r\n\n\r.\r\n.")))
    assert endpoint.door.kept[0][0] == b"Subject: a\r\nX: b\r\n\r\nc\r\n\r\n\r\n.\r\n."


async def test_recipients_are_those_of_the_envelope_each_mailbox_once(endpoint: Endpoint) -> None:
    endpoint.door.known |= {"two@inbox.test": "mbx_2", "alias@inbox.test": "mbx_1", "header-only@inbox.test": "mbx_3"}
    heard = ("known@inbox.test", "nobody@inbox.test", "KNOWN@inbox.test", "alias@inbox.test", "two@inbox.test")
    await endpoint.post(notification(ses_notification(MAIL, heard)))
    [(_, _, to)] = endpoint.door.kept
    assert [(inbox.mailbox, envelope.recipient) for inbox, envelope in to] == [
        ("mbx_1", "known@inbox.test"),
        ("mbx_2", "two@inbox.test"),
    ]


async def test_a_mail_for_nobody_we_know_is_accepted_and_dropped(endpoint: Endpoint) -> None:
    answer = await endpoint.post(notification(ses_notification(MAIL, ("nobody@inbox.test",))))
    assert (answer.status, endpoint.door.kept) == (200, [])
    assert endpoint.door.looked_up == ["nobody@inbox.test"]


@pytest.mark.parametrize(
    ("source", "sender"), [("", ""), ("<>", ""), ("<a@b.test>", "a@b.test"), (" a@b.test ", "a@b.test")]
)
async def test_the_sender_is_that_of_the_envelope_also_for_bounces(
    source: str, sender: str, endpoint: Endpoint
) -> None:
    await endpoint.post(notification(ses_notification(MAIL, source=source)))
    assert endpoint.door.kept[0][2][0][1].sender == sender


@pytest.mark.parametrize(
    "text",
    [
        ses_notification(mail={"source": "aws@amazon.com", "messageId": "AMAZON_SES_SETUP_NOTIFICATION"}),
        ses_notification(action={"type": "Lambda", "topicArn": TOPIC, "functionArn": "arn:aws:lambda:x"}),
        ses_notification(action={"type": "Bounce", "topicArn": TOPIC, "smtpReplyCode": "550"}),
        ses_notification(action={"type": "Stop", "topicArn": TOPIC}),
        json.dumps({"notificationType": "Bounce", "bounce": {"bounceType": "Permanent"}, "mail": {}}),
        json.dumps({"eventType": "Delivery"}),
        "Successfully validated SNS topic for Amazon SES event publishing.",
        "",
        "[]",
        "null",
    ],
)
async def test_what_tells_of_no_mail_is_acknowledged_and_dropped(text: str, endpoint: Endpoint) -> None:
    answer = await endpoint.post(notification(text))
    assert (answer.status, endpoint.door.kept, endpoint.door.looked_up) == (200, [], [])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"notificationType": "Received"}),
        ses_notification(receipt={"action": {"type": "SNS"}}),
        ses_notification(action={"type": "SNS", "topicArn": TOPIC}),
        ses_notification(action={"type": "S3", "topicArn": TOPIC, "bucketName": "mails"}),
        ses_notification(action={"type": "S3", "topicArn": TOPIC, "bucketName": "../x", "objectKey": "y"}),
        ses_notification(content=17),
        ses_notification(content="no base64!"),
        ses_notification(to=("a@b.test\r\nRCPT TO:<c@d.test>",)),
        ses_notification(source="a@b.test\x00"),
        ses_notification(to=tuple(f"r{n}@inbox.test" for n in range(101))),
    ],
)
async def test_a_mail_described_otherwise_than_ses_does_it_is_refused_for_good(text: str, endpoint: Endpoint) -> None:
    endpoint.door.known["a@b.test"] = "mbx_1"
    answer = await endpoint.post(notification(text))
    assert answer.status == 422
    assert (await problem(answer))["code"] == "ses_notification"
    assert endpoint.door.kept == []


async def test_a_hundred_recipients_are_taken(endpoint: Endpoint) -> None:
    heard = tuple(f"r{n}@inbox.test" for n in range(100))
    endpoint.door.known |= {address: address for address in heard}
    assert (await endpoint.post(notification(ses_notification(MAIL, heard)))).status == 200
    assert len(endpoint.door.kept[0][2]) == 100


async def test_a_forged_message_is_refused_with_a_problem_and_reaches_nothing(endpoint: Endpoint) -> None:
    forged = notification(ses_notification(MAIL)) | {"Message": ses_notification(b"evil")}
    answer = await endpoint.post(forged)
    assert answer.status == 403
    assert (await problem(answer))["code"] == "sns_signature"
    assert (endpoint.door.kept, endpoint.door.looked_up) == ([], [])


async def test_without_topics_the_setting_is_named() -> None:
    async with Endpoint(arns=()).served() as endpoint:
        answer = await endpoint.post(notification(ses_notification(MAIL)))
        assert answer.status == 403
        assert "POSTLEDGER_SNS_TOPICS" in (await problem(answer))["detail"]


@pytest.mark.parametrize("kind", ["text/plain; charset=UTF-8", "application/json", "application/x-www-form-urlencoded"])
async def test_the_content_type_does_not_matter(kind: str, endpoint: Endpoint) -> None:
    answer = await endpoint.post(notification(ses_notification(MAIL)), **{"Content-Type": kind})
    assert (answer.status, len(endpoint.door.kept)) == (200, 1)


async def test_headers_of_sns_are_not_believed(endpoint: Endpoint) -> None:
    lies = {"x-amz-sns-message-type": "SubscriptionConfirmation", "x-amz-sns-topic-arn": "arn:aws:sns:x:1:y"}
    answer = await endpoint.post(notification(ses_notification(MAIL)), **lies)
    assert (answer.status, len(endpoint.door.kept)) == (200, 1)


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY - 1, 400), (MAX_BODY, 400), (MAX_BODY + 1, 413)])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_has_512_kib_at_most(size: int, status: int, declared: bool, endpoint: Endpoint) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, size, 65536):
            yield bytes(min(65536, size - start))

    answer = await endpoint.post(bytes(size) if declared else blocks())
    assert answer.status == status
    await problem(answer)


async def test_the_largest_mail_that_sns_can_carry_is_taken(endpoint: Endpoint) -> None:
    mail = b"Subject: big\r\n\r\n" + b"x" * 150 * 1024
    assert (await endpoint.post(notification(ses_notification(mail)))).status == 200
    assert endpoint.door.kept[0][0] == mail


async def test_a_hundred_repeats_of_a_message_have_one_effect(endpoint: Endpoint) -> None:
    message = notification(ses_notification(MAIL))
    at_once = await asyncio.gather(*(endpoint.post(message) for _ in range(50)))
    later = [await endpoint.post(message) for _ in range(50)]
    assert {answer.status for answer in at_once + later} == {200}
    assert len(endpoint.door.kept) == 1


async def test_the_same_mail_under_another_message_is_left_to_the_log_to_tell(endpoint: Endpoint) -> None:
    for number in (1, 2):
        await endpoint.post(notification(ses_notification(MAIL), MessageId=f"id-{number}"))
    assert [spooled.sha256 for _, spooled, _ in endpoint.door.kept] == [sha256(MAIL).hexdigest()] * 2


@pytest.mark.parametrize("after", [False, True])
async def test_what_cannot_be_promised_is_answered_503_and_taken_at_the_next_try(
    after: bool, endpoint: Endpoint
) -> None:
    message = notification(ses_notification(MAIL))
    endpoint.door.deliver_fails = Unavailable("The log can't be reached now.", retry_after=7)
    endpoint.door.fails_after_keeping = after
    answer = await endpoint.post(message)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    assert (await problem(answer))["detail"] == "The log can't be reached now."
    assert (await endpoint.post(message)).status == 200
    kept = [spooled.sha256 for _, spooled, _ in endpoint.door.kept]
    assert kept == [sha256(MAIL).hexdigest()] * (2 if after else 1)


async def test_a_look_up_that_fails_is_answered_503(endpoint: Endpoint) -> None:
    endpoint.door.find_fails = Unavailable("The mailboxes can't be looked up now.", retry_after=3)
    answer = await endpoint.post(notification(ses_notification(MAIL)))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
    assert endpoint.door.kept == []


@pytest.mark.parametrize("where", ["find", "deliver"])
async def test_any_other_failure_is_answered_503_and_its_text_is_told_to_nobody(
    where: str, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(endpoint.door, f"{where}_fails", RuntimeError("password=secret known@inbox.test"))
    with caplog.at_level(logging.DEBUG, logger="gateways"):
        answer = await endpoint.post(notification(ses_notification(MAIL)))
    assert answer.status == 503
    assert "Retry-After" in answer.headers
    assert "secret" not in await answer.text()
    assert "secret" not in caplog.text
    assert "RuntimeError" in caplog.text


async def test_a_subscription_is_confirmed_once_however_often_it_is_offered(endpoint: Endpoint) -> None:
    url = subscription()["SubscribeURL"]
    assert (await endpoint.post(subscription())).status == 503
    endpoint.http.answers[url] = b"<ConfirmSubscriptionResponse/>"
    for _ in range(5):
        assert (await endpoint.post(subscription())).status == 200
    assert endpoint.http.fetched.count(url) == 2


async def test_the_end_of_a_subscription_is_acknowledged_and_not_undone(endpoint: Endpoint) -> None:
    ended = subscription("UnsubscribeConfirmation")
    assert (await endpoint.post(ended)).status == 200
    assert ended["SubscribeURL"] not in endpoint.http.fetched


async def test_a_body_that_breaks_off_does_no_harm(endpoint: Endpoint) -> None:
    host, port = endpoint.url.split("/")[2].split(":")
    for _ in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/v1/ses/inbound HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
    assert (await endpoint.post(notification(ses_notification(MAIL)))).status == 200


async def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(endpoint: Endpoint) -> None:
    host, port = endpoint.url.split("/")[2].split(":")
    for declared in (str(MAX_BODY + 1), "9" * 18):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /api/v1/ses/inbound HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        await writer.wait_closed()
