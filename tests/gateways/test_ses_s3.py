"""Against moto: mail in a real S3 interface, and SNS messages that somebody else signed."""

import asyncio
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import aiohttp
import boto3
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate

from gateways.mail_in.door import Unavailable
from gateways.mail_in.s3_mail import S3Mail
from gateways.mail_in.sns import SnsMessage, signature_holds
from gateways.mail_in.sns_certificates import CertificateRefused, signing_certificate
from gateways.mail_in.sns_topics import Topic, is_certificate_of

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": REGION}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a moto server of this module."""
    command = [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(line.rpartition(" ")[2].strip() for line in server.stderr if "Running on http://" in line)
        yield address
        server.terminate()
        server.stderr.close()


def client(service: str, moto: str) -> Any:
    return boto3.client(service, endpoint_url=moto, **KEYS)


def s3_mail(moto: str) -> S3Mail:
    config: Any = {"endpoint": moto, "access_key_id": "x", "secret_access_key": "y", "region": REGION}
    return S3Mail(config, {"allow_http": True})


@pytest.fixture(scope="module")
def bucket(moto: str) -> str:
    client("s3", moto).create_bucket(Bucket="mails")
    return "mails"


async def read(mail: S3Mail, bucket: str, key: str) -> list[bytes]:
    return [block async for block in mail.fetch(bucket, key)]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 3 * 1024 * 1024 + 1])
async def test_an_object_is_read_whole_in_blocks(size: int, moto: str, bucket: str) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    client("s3", moto).put_object(Bucket=bucket, Key=f"in/{size}", Body=body)
    blocks = await read(s3_mail(moto), bucket, f"in/{size}")
    assert b"".join(blocks) == body
    assert all(len(block) < 2 * 1024 * 1024 for block in blocks)


@pytest.mark.parametrize(
    ("name", "key"), [("mails", "none"), ("nowhere", "none"), ("mails", "a//b"), ("mails", "../x")]
)
async def test_an_object_that_cannot_be_read_is_a_matter_of_trying_again(
    name: str, key: str, moto: str, bucket: str
) -> None:
    with pytest.raises(Unavailable, match="can't be read from its bucket now"):
        await read(s3_mail(moto), name, key)


async def test_a_mail_that_ses_encrypted_on_its_side_is_not_taken_for_a_mail(moto: str, bucket: str) -> None:
    client("s3", moto).put_object(Bucket=bucket, Key="sealed", Body=b"\x00\x01", Metadata={"x-amz-key-v2": "k"})
    with pytest.raises(Unavailable, match="encrypted by SES itself"):
        await read(s3_mail(moto), bucket, "sealed")


@pytest.fixture
async def posts() -> AsyncIterator[tuple[str, "asyncio.Queue[bytes]"]]:
    """An endpoint that keeps what is posted to it."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(request: web.BaseRequest) -> web.Response:
        await queue.put(await request.read())
        return web.Response()

    runner = web.ServerRunner(web.Server(keep))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", queue
    await runner.cleanup()


async def published(moto: str, posts: tuple[str, "asyncio.Queue[bytes]"], text: str) -> tuple[SnsMessage, bytes]:
    """A message that moto signed and posted, and the certificate that it serves for it."""
    sns = client("sns", moto)
    address, queue = posts
    # A topic for each time: moto also posts to the endpoints of tests that have ended, and fails where they are gone.
    topic = sns.create_topic(Name=f"mail-in-{uuid4()}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=address)
    await asyncio.to_thread(sns.publish, TopicArn=topic, Message=text)
    message = SnsMessage.model_validate_json(await queue.get())
    assert is_certificate_of(Topic.parse(topic), message.SigningCertURL)
    path = message.SigningCertURL.rpartition("/")[2]
    scope = "AWS4-HMAC-SHA256 Credential=x/20261122/us-east-1/sns/aws4_request"
    headers = {"Host": Topic.parse(topic).host, "Authorization": scope}
    async with aiohttp.ClientSession() as http, http.get(f"{moto}/{path}", headers=headers) as answer:
        return message, await answer.read()


@pytest.mark.parametrize("text", ["hello", 'Grüße, 你好\n{"a": "b"}\r\n', "x" * 200_000])
async def test_the_signature_of_another_implementation_holds_and_only_for_its_text(
    text: str, moto: str, posts: tuple[str, "asyncio.Queue[bytes]"]
) -> None:
    message, pem = await published(moto, posts, text)
    key = load_pem_x509_certificate(pem).public_key()
    assert isinstance(key, RSAPublicKey)
    assert len(b64decode(message.Signature)) == 256
    assert message.Message == text
    assert signature_holds(message, key)
    assert not signature_holds(message.model_copy(update={"Message": text + " "}), key)


async def test_the_certificate_of_moto_is_none_of_sns(moto: str, posts: tuple[str, "asyncio.Queue[bytes]"]) -> None:
    """It bears the right names, Amazon's authority as issuer among them, and is signed with its own key."""
    message, pem = await published(moto, posts, "hello")
    with pytest.raises(CertificateRefused, match="not issued by an authority"):
        signing_certificate(pem, Topic.parse(message.TopicArn))
