"""Which topics are allowed, and which URLs follow from one: pure rules, no network."""

import pytest

from gateways.mail_in.sns_topics import Topic, confirms, is_certificate_of, topics
from tests.support.sns_double import CERTIFICATE_URL, HOST, TOPIC

PEM = "SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem"
TOKEN = "2336412f37fb687f5d51e6e241d09c80"
GOOD = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}"


def test_the_setting_is_a_list_of_arns_with_any_spaces() -> None:
    other = "arn:aws-cn:sns:cn-north-1:123456789012:b"
    assert list(topics(f" {TOPIC} , {other},")) == [TOPIC, other]
    assert topics("") == {}


@pytest.mark.parametrize(
    "arn",
    [
        "mail-in",
        "arn:aws:sqs:eu-west-1:123456789012:mail-in",
        "arn:aws:sns:s3:123456789012:mail-in",
        "arn:aws:sns:evil.com/:123456789012:mail-in",
        "arn:aws:sns:eu-west-1:1234:mail-in",
        "arn:aws:sns:eu-west-1:123456789012:mail-in.fifo",
        "arn:aws:sns:cn-north-1:123456789012:mail-in",
        "arn:aws-cn:sns:eu-west-1:123456789012:mail-in",
        f"{TOPIC}\n{TOPIC}",
        f"{TOPIC}:c9135db0-26c4-47ec-8998-413945fb5a96",
        "*",
    ],
)
def test_what_is_no_topic_is_said_to_the_operator(arn: str) -> None:
    with pytest.raises(ValueError, match="isn't the ARN of an SNS topic"):
        topics(arn)


@pytest.mark.parametrize(
    ("arn", "host"),
    [
        (TOPIC, "sns.eu-west-1.amazonaws.com"),
        ("arn:aws:sns:us-east-1:123456789012:m", "sns.us-east-1.amazonaws.com"),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:m", "sns.us-gov-west-1.amazonaws.com"),
        ("arn:aws-cn:sns:cn-north-1:123456789012:m", "sns.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_each_topic_has_one_host(arn: str, host: str) -> None:
    topic = Topic.parse(arn)
    assert topic.host == host
    assert is_certificate_of(topic, f"https://{host}/{PEM}")


HOSTILE = [
    f"http://sns.eu-west-1.amazonaws.com/{PEM}",
    f"HTTPS://sns.eu-west-1.amazonaws.com/{PEM}",
    f"https://sns.us-east-1.amazonaws.com/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com.cn/{PEM}",
    f"https://sns.evil.com/{PEM}",
    f"https://evil.com/{PEM}",
    f"https://sns.s3.amazonaws.com/{PEM}",
    f"https://sns.s3-eu-west-1.amazonaws.com/{PEM}",
    f"https://sns.s3.eu-west-1.amazonaws.com/{PEM}",
    f"https://s3.eu-west-1.amazonaws.com/sns/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com.evil/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com.evil.com/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com@evil.com/{PEM}",
    f"https://evil.com@sns.eu-west-1.amazonaws.com/{PEM}",
    f"https://user:pass@sns.eu-west-1.amazonaws.com/{PEM}",
    f"https://sns%2eeu-west-1.amazonaws.com/{PEM}",
    f"https://sns.eu-west-1%2eamazonaws.com/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com%2f@evil.com/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com:443/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com:8443/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com./{PEM}",
    f"https://sns-eu-west-1.amazonaws.com/{PEM}",
    f"https://xsns.eu-west-1.amazonaws.com/{PEM}",
    f"https://sns.eu-west-1xamazonaws.com/{PEM}",
    f"https://127.0.0.1/{PEM}",
    f"https://localhost/{PEM}",
    f"https://169.254.169.254/{PEM}",
    f"https://[::1]/{PEM}",
    f"file:///etc/{PEM}",
    f"//sns.eu-west-1.amazonaws.com/{PEM}",
    "https://sns.eu-west-1.amazonaws.com/evil.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-abc.pem.exe",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-abc.crt",
    f"https://sns.eu-west-1.amazonaws.com/x/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com/../{PEM}",
    f"https://sns.eu-west-1.amazonaws.com//{PEM}",
    f"https://sns.eu-west-1.amazonaws.com\\@evil.com/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com/{PEM}?x=1",
    f"https://sns.eu-west-1.amazonaws.com/{PEM}#x",
    f"https://sns.eu-west-1.amazonaws.com/{PEM}\n",
    f"\nhttps://sns.eu-west-1.amazonaws.com/{PEM}",
    f"https://sns.eu-west-1.amazonaws.com/{PEM}\r\nHost: evil.com",
    f"https://sns.eu-west-1.amazonaws.com/{PEM}\x00",
    f"https://ѕns.eu-west-1.amazonaws.com/{PEM}",
    f"https://sns。eu-west-1。amazonaws。com/{PEM}",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-" + "a" * 129 + ".pem",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_certificate_comes_from_the_topics_own_host_and_no_other(url: str) -> None:
    assert not is_certificate_of(Topic.parse(TOPIC), url)


def test_the_certificate_of_the_topic_is_recognised() -> None:
    assert is_certificate_of(Topic.parse(TOPIC), CERTIFICATE_URL)


def test_a_subscription_is_confirmed_by_exactly_its_own_url() -> None:
    encoded = GOOD.replace(TOPIC, TOPIC.replace(":", "%3A"))
    assert confirms(Topic.parse(TOPIC), TOKEN, GOOD)
    assert confirms(Topic.parse(TOPIC), TOKEN, encoded)


@pytest.mark.parametrize(
    "url",
    [
        GOOD.replace("https", "http"),
        GOOD.replace("eu-west-1.amazonaws", "us-east-1.amazonaws"),
        GOOD.replace("amazonaws.com", "amazonaws.com.cn"),
        GOOD.replace("amazonaws.com", "amazonaws.com.evil"),
        GOOD.replace("https://", "https://evil.com@"),
        GOOD.replace(".com/", ".com@evil.com/"),
        GOOD.replace(".com/", ".com:8443/"),
        GOOD.replace(HOST, "https://127.0.0.1"),
        GOOD.replace(HOST, "https://169.254.169.254"),
        GOOD.replace(HOST, "https://[::ffff:127.0.0.1]"),
        GOOD.replace("/?", "/x?"),
        GOOD.replace("/?", "//?"),
        GOOD.replace("ConfirmSubscription", "Unsubscribe"),
        GOOD.replace("ConfirmSubscription", "DeleteTopic"),
        GOOD.replace("mail-in", "other-topic"),
        GOOD.replace("123456789012", "210987654321"),
        GOOD.replace(TOKEN, "another"),
        GOOD + "&Token=again",
        GOOD + "&AuthenticateOnUnsubscribe=true",
        GOOD + "&Action=DeleteTopic",
        GOOD + "#x",
        GOOD + "\r\nX: y",
        GOOD + " ",
        GOOD.replace(f"&Token={TOKEN}", ""),
        GOOD.replace("&", ";"),
        GOOD.partition("?")[0],
        HOST,
        "",
    ],
)
def test_a_url_that_would_do_anything_else_confirms_nothing(url: str) -> None:
    assert not confirms(Topic.parse(TOPIC), TOKEN, url)
