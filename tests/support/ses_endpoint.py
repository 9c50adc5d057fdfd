"""The endpoint for SES behind a real server, with a transport that counts and a door that records."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from gateways.http import refusals
from gateways.http.edge import Edge
from gateways.http.measures import Measures
from gateways.http.problems import KINDS
from gateways.http.ses_inbound import routes
from gateways.mail_in.s3_mail import FetchesMail
from gateways.mail_in.ses import SesInbound
from gateways.mail_in.sns import SnsVerifier
from tests.support.sns_double import NOW, TOPIC, CountingHttp, NoBucket, RecordingDoor, allowed, body

MAIL = b"From: a@example.com\r\nMessage-ID: <1@example.com>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nhello\r\n"


class Endpoint:
    """The router behind a real server, and everything that stands around it."""

    def __init__(self, bucket: FetchesMail | None = None, arns: tuple[str, ...] = (TOPIC,)) -> None:
        self.door = RecordingDoor()
        self.http = CountingHttp()
        topics = allowed(*arns) if arns else {}
        router = routes(SesInbound(self.door, SnsVerifier(topics, self.http, now=lambda: NOW), bucket or NoBucket()))
        app = FastAPI()
        app.include_router(router)
        refusals.install(app, router.routes)
        self.app = Edge(app, Measures(CollectorRegistry()), refusals.problem_of)
        self.url = ""
        self.session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Self]:
        config = uvicorn.Config(self.app, port=0, log_config=None, lifespan="off", ws="none")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api/v1/ses/inbound"
        async with aiohttp.ClientSession() as self.session:
            yield self
        await server.shutdown()

    async def post(self, data: Any, **headers: str) -> aiohttp.ClientResponse:
        """Posts as SNS does."""
        assert self.session is not None
        data = body(data) if isinstance(data, dict) else data
        async with self.session.post(
            self.url, data=data, headers={"Content-Type": "text/plain; charset=UTF-8", **headers}
        ) as answer:
            await answer.read()  # kept for the tests
            return answer


async def problem(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem (RFC 9457) in an answer, once it is known to be a whole one."""
    assert answer.content_type == "application/problem+json"
    said: dict[str, Any] = json.loads(await answer.text())
    assert said["status"] == answer.status
    assert said["type"] == f"/docs/problems#{said['code']}"
    assert said["title"] == KINDS[said["code"]].title
    assert answer.status == KINDS[said["code"]].status
    assert said["request_id"] == answer.headers["X-Request-Id"]
    assert said["detail"].endswith(".")
    return said
