"""Certificates of SNS: which are believed, and how often they are fetched."""

import asyncio
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateways.mail_in.sns_certificates import (
    UNKNOWN_A_MINUTE,
    CertificateRefused,
    Certificates,
    CertificateUnreachable,
    signing_certificate,
)
from gateways.mail_in.sns_http import Unreachable
from gateways.mail_in.sns_topics import Topic
from tests.support.sns_double import CERTIFICATE_URL, HOST, NOW, TOPIC, CountingHttp, certificate, pem, rsa_key

topic = Topic.parse(TOPIC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        (TOPIC, "sns.amazonaws.com"),
        (TOPIC, "sns.eu-west-1.amazonaws.com"),
        ("arn:aws:sns:af-south-1:123456789012:m", "sns-signing.af-south-1.amazonaws.com"),
        ("arn:aws-us-gov:sns:us-gov-east-1:123456789012:m", "sns-us-gov-west-1.amazonaws.com"),
        ("arn:aws-cn:sns:cn-north-1:123456789012:m", "sns-cn-north-1.amazonaws.com.cn"),
    ],
)
def test_every_name_that_sns_signs_under_is_believed(arn: str, name: str) -> None:
    signing_certificate(pem(certificate(name)), Topic.parse(arn))
    signing_certificate(pem(certificate("something", dns=("other.test", name))), Topic.parse(arn))


def test_a_chain_in_the_file_is_believed_where_it_holds() -> None:
    authority = certificate("Amazon RSA 2048 M01", key=rsa_key("authority"), issuer="Root", ca=True)
    signing_certificate(pem(certificate(), authority), topic)


root = certificate(
    "Amazon RSA 2048 M01",
    key=rsa_key("authority"),
    issuer="Amazon RSA 2048 M01",
    issuer_key=rsa_key("authority"),
    ca=True,
)
WRONG = {
    "another region's name": pem(certificate("sns.us-east-1.amazonaws.com")),
    "another service's name": pem(certificate("s3.amazonaws.com")),
    "a name that only starts right": pem(certificate("sns.amazonaws.com.evil.com")),
    "a common name beside other alternative names": pem(certificate(dns=("evil.com",))),
    "China's name outside China": pem(certificate("sns.amazonaws.com.cn")),
    "self-signed": pem(certificate(issuer="sns.amazonaws.com", issuer_key=rsa_key("sns"))),
    "signed by its own key under another name": pem(certificate(issuer_key=rsa_key("sns"))),
    "named as its own issuer": pem(certificate(issuer="sns.amazonaws.com")),
    "an authority": pem(certificate(ca=True)),
    "a short key": pem(certificate(key=rsa_key("short", 1024))),
    "an elliptic key": pem(certificate(key=ec.generate_private_key(ec.SECP256R1()))),
    "a wrong chain": pem(
        certificate(), certificate("Amazon RSA 2048 M01", key=rsa_key("other"), issuer="Root", ca=True)
    ),
    "an endless chain": pem(certificate(), *[root] * 50),
}
UNREADABLE = {
    "a page": b"<html>not here</html>",
    "nothing": b"",
    "a damaged certificate": pem(certificate())[:-200] + b"\n-----END CERTIFICATE-----\n",
    "a private key": b"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_sns_would_not_sign_with_is_refused(what: str) -> None:
    http = CountingHttp({CERTIFICATE_URL: WRONG[what]})
    with pytest.raises(CertificateRefused):
        await Certificates(http, now=Clock()).key(CERTIFICATE_URL, topic)
    assert http.fetched == [CERTIFICATE_URL]


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_is_no_certificate_is_fetched_again_after_a_minute(what: str) -> None:
    clock, http = Clock(), CountingHttp({CERTIFICATE_URL: UNREADABLE[what]})
    certificates = Certificates(http, now=clock)
    for _ in range(2):
        with pytest.raises(CertificateUnreachable, match="can't be read"):
            await certificates.key(CERTIFICATE_URL, topic)
    http.answers[CERTIFICATE_URL] = pem(certificate())
    clock.now += timedelta(minutes=1)
    await certificates.key(CERTIFICATE_URL, topic)
    assert len(http.fetched) == 2


@pytest.mark.parametrize(
    ("since", "until", "good"),
    [
        (timedelta(seconds=0), timedelta(days=1), True),
        (timedelta(seconds=1), timedelta(days=1), False),
        (timedelta(days=-1), timedelta(seconds=0), True),
        (timedelta(days=-1), timedelta(seconds=-1), False),
    ],
)
async def test_a_certificate_is_believed_within_its_dates_to_the_second(
    since: timedelta, until: timedelta, good: bool
) -> None:
    http = CountingHttp({CERTIFICATE_URL: pem(certificate(since=NOW + since, until=NOW + until))})
    certificates = Certificates(http, now=Clock())
    if good:
        await certificates.key(CERTIFICATE_URL, topic)
    else:
        with pytest.raises(CertificateUnreachable, match="not valid now"):
            await certificates.key(CERTIFICATE_URL, topic)


async def test_a_kept_certificate_stops_being_believed_when_it_expires() -> None:
    clock = Clock()
    http = CountingHttp({CERTIFICATE_URL: pem(certificate(until=NOW + timedelta(hours=1)))})
    certificates = Certificates(http, now=clock)
    await certificates.key(CERTIFICATE_URL, topic)
    clock.now += timedelta(hours=1, seconds=1)
    with pytest.raises(CertificateUnreachable, match="not valid now"):
        await certificates.key(CERTIFICATE_URL, topic)
    assert len(http.fetched) == 1


async def test_a_certificate_is_fetched_once_a_day() -> None:
    clock, http = Clock(), CountingHttp()
    certificates = Certificates(http, now=clock)
    for _ in range(24 * 4):
        await certificates.key(CERTIFICATE_URL, topic)
        clock.now += timedelta(minutes=15)
    assert len(http.fetched) == 1
    await certificates.key(CERTIFICATE_URL, topic)
    assert len(http.fetched) == 2


async def test_those_who_ask_at_once_share_one_fetch() -> None:
    class SlowHttp(CountingHttp):
        async def fetch(self, url: str) -> bytes:
            answer = await super().fetch(url)
            await asyncio.sleep(0.01)
            return answer

    http = SlowHttp()
    certificates = Certificates(http, now=Clock())
    keys = await asyncio.gather(*(certificates.key(CERTIFICATE_URL, topic) for _ in range(200)))
    assert len(http.fetched) == 1
    assert {key.public_numbers() for key in keys} == {rsa_key("sns").public_key().public_numbers()}


async def test_a_failure_is_remembered_for_a_minute_and_then_tried_again() -> None:
    clock, http = Clock(), CountingHttp({CERTIFICATE_URL: Unreachable("status 500")})
    certificates = Certificates(http, now=clock)
    for _ in range(100):
        with pytest.raises(CertificateUnreachable, match="status 500"):
            await certificates.key(CERTIFICATE_URL, topic)
    assert len(http.fetched) == 1
    http.answers[CERTIFICATE_URL] = pem(certificate())
    clock.now += timedelta(minutes=1)
    await certificates.key(CERTIFICATE_URL, topic)
    assert len(http.fetched) == 2


@pytest.mark.parametrize(
    "answer",
    [Unreachable("no answer"), UNREADABLE["a page"], WRONG["another service's name"]],
    ids=["unreachable", "unreadable", "refused"],
)
async def test_a_certificate_that_was_good_outlives_an_outage_of_its_host(answer: bytes | Unreachable) -> None:
    clock, http = Clock(), CountingHttp()
    certificates = Certificates(http, now=clock)
    await certificates.key(CERTIFICATE_URL, topic)
    http.answers[CERTIFICATE_URL] = answer
    clock.now += timedelta(days=2)
    for _ in range(100):
        await certificates.key(CERTIFICATE_URL, topic)
    assert len(http.fetched) == 2


async def test_a_flood_of_unknown_names_is_bounded_and_does_not_touch_known_ones() -> None:
    clock, http = Clock(), CountingHttp()
    certificates = Certificates(http, now=clock)
    await certificates.key(CERTIFICATE_URL, topic)
    clock.now += timedelta(days=2)
    http.fetched.clear()
    for number in range(1000):
        with pytest.raises(CertificateUnreachable):
            await certificates.key(f"{HOST}/SimpleNotificationService-{number}.pem", topic)
    assert len(http.fetched) == UNKNOWN_A_MINUTE
    await certificates.key(CERTIFICATE_URL, topic)
    assert http.fetched[-1] == CERTIFICATE_URL
    clock.now += timedelta(minutes=1)
    http.answers[f"{HOST}/SimpleNotificationService-new.pem"] = pem(certificate())
    await certificates.key(f"{HOST}/SimpleNotificationService-new.pem", topic)


async def test_a_cancelled_fetch_leaves_the_next_one_free_to_try() -> None:
    class FirstHangs(CountingHttp):
        async def fetch(self, url: str) -> bytes:
            answer = await super().fetch(url)
            if len(self.fetched) == 1:
                await asyncio.Event().wait()
            return answer

    http = FirstHangs()
    certificates = Certificates(http, now=Clock())
    first = asyncio.create_task(certificates.key(CERTIFICATE_URL, topic))
    second = asyncio.create_task(certificates.key(CERTIFICATE_URL, topic))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert len(http.fetched) == 2
