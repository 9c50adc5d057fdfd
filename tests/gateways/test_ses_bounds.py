"""SES mail that lies in a bucket, and what a mail, a bad post and a repeat may cost."""

from collections.abc import AsyncIterator
from datetime import timedelta
from time import process_time
from typing import Any

import pytest
from starlette.types import ASGIApp

from gateways.mail_in.sns_once import Once
from gateways.mail_in.spool import MAX_MAIL
from tests.support.ses_endpoint import MAIL, Endpoint, problem
from tests.support.sns_double import TOPIC, body, notification, ses_notification


class Bucket:
    """One bucket in memory."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = blocks
        self.asked: list[tuple[str, str]] = []

    async def fetch(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        self.asked.append((bucket, key))
        for block in self.blocks:
            yield block


def in_bucket(**fields: Any) -> str:
    return ses_notification(
        action={"type": "S3", "topicArn": TOPIC, "bucketName": "mails", "objectKey": "in/d6iitobk75ur44p8"}, **fields
    )


async def test_a_mail_in_a_bucket_is_read_from_there_whole_over_block_borders() -> None:
    bucket = Bucket(b"Subject: a\r", b"\n\r", b"\r", b"\nbody\n", b"", b"\r")
    async with Endpoint(bucket).served() as endpoint:
        assert (await endpoint.post(notification(in_bucket()))).status == 200
        assert endpoint.door.kept[0][0] == b"Subject: a\r\n\r\n\r\nbody\r\n\r\n"
    assert bucket.asked == [("mails", "in/d6iitobk75ur44p8")]


async def test_no_bucket_is_read_for_a_mail_for_nobody() -> None:
    bucket = Bucket(b"mail")
    async with Endpoint(bucket).served() as endpoint:
        assert (await endpoint.post(notification(in_bucket(to=("nobody@inbox.test",))))).status == 200
    assert bucket.asked == []


@pytest.mark.parametrize(("size", "status"), [(MAX_MAIL - 1, 200), (MAX_MAIL, 200), (MAX_MAIL + 1, 413)])
async def test_a_mail_has_25_mib_at_most(size: int, status: int) -> None:
    block = bytes(1024 * 1024)
    bucket = Bucket(*[block] * (size // len(block)), bytes(size % len(block)))
    async with Endpoint(bucket).served() as endpoint:
        answer = await endpoint.post(notification(in_bucket()))
        assert answer.status == status
        assert [spooled.size for _, spooled, _ in endpoint.door.kept] == ([size] if status == 200 else [])


async def test_a_bucket_that_cannot_be_read_is_answered_503() -> None:
    async with Endpoint().served() as endpoint:
        answer = await endpoint.post(notification(in_bucket()))
        assert answer.status == 503
        assert (await problem(answer))["detail"] == "No bucket mails here."


async def test_a_thousand_bad_posts_cost_at_most_a_millisecond_each() -> None:
    """Measured through the whole application, without the sockets: in CPU time, of which a busy machine takes no more."""
    endpoint = Endpoint()
    good = notification(ses_notification(MAIL))
    bad = [
        body(good | {"Message": "evil"}),
        body(good | {"TopicArn": TOPIC + "x"}),
        body(good | {"SigningCertURL": "https://127.0.0.1/SimpleNotificationService-a.pem"}),
        body(good | {"Timestamp": "2020-01-01T00:00:00Z"}),
        b"{}",
    ]
    posts = bad * 200
    statuses = set()
    await _call(endpoint.app, bad[0])
    began = process_time()
    for post in posts:
        statuses.add(await _call(endpoint.app, post))
    each = (process_time() - began) / len(posts)
    print(f"a bad post costs {each * 1000:.3f} ms")
    assert statuses == {400, 403}
    assert each <= 0.001
    assert len(endpoint.http.fetched) == 1
    assert endpoint.door.looked_up == []


async def _call(app: ASGIApp, data: bytes) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/v1/ses/inbound",
        "raw_path": b"/api/v1/ses/inbound",
        "query_string": b"",
        "headers": [(b"content-length", str(len(data)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return statuses[0]


async def test_what_was_done_is_remembered_for_the_window_and_what_failed_is_not() -> None:
    clock, done = [0.0], []
    once = Once(timedelta(seconds=10), clock=lambda: clock[0])

    async def act() -> None:
        done.append(clock[0])

    async def fail() -> None:
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        await once.do("a", fail)
    for clock[0] in (1.0, 5.0, 11.0, 11.5, 20.0, 22.0):
        await once.do("a", act)
    assert done == [1.0, 11.5, 22.0]
