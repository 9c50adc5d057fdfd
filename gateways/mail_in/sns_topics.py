"""Which topics of Amazon SNS we listen to, and the only two kinds of URL that follow from a topic.

A message names the URL of its certificate and the URL that confirms a subscription. Both are attacker's input until the
signature holds, and the first is needed to check the signature. So neither is ever trusted for what it says: the host is
worked out from the topic's ARN, the topic must have been allowed by the operator, and a URL that isn't exactly what SNS
itself would have written there is not fetched. That also keeps out hosts that only look right, such as a bucket named
`sns` (`sns.s3.amazonaws.com`).
"""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl

_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):sns:(?P<region>[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}):[0-9]{12}:[A-Za-z0-9_-]{1,256}"
)
_CERTIFICATE_URL = re.compile(
    r"https://(?P<host>sns\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?)/SimpleNotificationService-[A-Za-z0-9_-]{1,128}\.pem"
)
_QUERY = re.compile(r"[A-Za-z0-9&=%:._~+-]{1,2048}")


@dataclass(frozen=True, slots=True)
class Topic:
    """A standard topic of Amazon SNS. (First-in-first-out topics can't deliver over HTTP.)"""

    arn: str
    region: str
    domain: str

    @classmethod
    def parse(cls, arn: str) -> Self:
        """Reads an ARN such as `arn:aws:sns:eu-west-1:123456789012:mail`.

        Raises ValueError, with a sentence for the operator, where it is none.
        """
        found = _ARN.fullmatch(arn)
        if found is None or (found["partition"] == "aws-cn") != found["region"].startswith("cn-"):
            raise ValueError(f"{arn!r} isn't the ARN of an SNS topic, such as arn:aws:sns:eu-west-1:123456789012:mail.")
        domain = "amazonaws.com.cn" if found["partition"] == "aws-cn" else "amazonaws.com"
        return cls(arn=arn, region=found["region"], domain=domain)

    @property
    def host(self) -> str:
        """The only host that speaks for this topic."""
        return f"sns.{self.region}.{self.domain}"


def topics(setting: str) -> dict[str, Topic]:
    """The setting POSTLEDGER_SNS_TOPICS, ARNs with commas between them, as topics by ARN.

    Raises ValueError, with a sentence for the operator, for anything that isn't the ARN of a topic.
    """
    arns = [arn.strip() for arn in setting.split(",")]
    return {arn: Topic.parse(arn) for arn in arns if arn}


def is_certificate_of(topic: Topic, url: str) -> bool:
    """Whether SNS would sign messages of this topic with the certificate at this URL."""
    found = _CERTIFICATE_URL.fullmatch(url)
    return found is not None and found["host"] == topic.host


def confirms(topic: Topic, token: str, url: str) -> bool:
    """Whether this URL confirms the subscription to this topic that the token stands for, and does nothing else."""
    address, _, query = url.partition("?")
    if address != f"https://{topic.host}/" or _QUERY.fullmatch(query) is None:
        return False
    try:
        asked = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=8)
    except ValueError:
        return False
    return sorted(asked) == [("Action", "ConfirmSubscription"), ("Token", token), ("TopicArn", topic.arn)]
