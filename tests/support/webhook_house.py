"""A house that delivers webhooks, and receivers of all kinds to deliver them to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from domain.callbacks import CallbackAbandoned
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from schemas import events, topics
from schemas.envelope import first
from tests.support.http_house import HttpHouse, bearer, http_house

#: Waits are so much shorter: 5 s are 25 ms, the whole schedule of 75 hours is a quarter of an hour.
SCALE = 0.005
#: Seconds that a receiver has for its answer.
SECONDS = 1.0
Answers = Callable[["Receiver", web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Received:
    """One call: its headers, its body, and when it came by the event loop's clock."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """A real HTTP server on loopback that notes what comes, and answers as it is told to."""

    url: str = ""
    answers: Answers | None = None
    calls: list[Received] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append(Received(headers, body, asyncio.get_running_loop().time()))
        async with self.came:
            self.came.notify_all()
        return await self.answers(self, request) if self.answers else web.Response(status=204)

    async def has(self, count: int, *, seconds: float = 20) -> list[Received]:
        """The calls, once there are so many."""
        async with asyncio.timeout(seconds), self.came:
            await self.came.wait_for(lambda: len(self.calls) >= count)
        return self.calls


def answering(*statuses: int, headers: dict[str, str] | None = None) -> Answers:
    """These statuses one after the other, the last one for ever."""

    async def answer(receiver: Receiver, _: web.Request) -> web.StreamResponse:
        number = min(len(receiver.calls), len(statuses)) - 1
        return web.Response(status=statuses[number], headers=headers)

    return answer


def verified(call: Received, secret: str) -> Any:
    """The body, once the reference library has verified it."""
    return Webhook(secret).verify(call.body, call.headers)


@asynccontextmanager
async def receiving(answers: Answers | None = None) -> AsyncIterator[Receiver]:
    """A receiver, until the block ends."""
    receiver = Receiver(answers=answers)
    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{rest:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class WebhookHouse:
    """What tests ask and do."""

    http: HttpHouse

    async def ask(self, method: str, path: str, key: str, status: int, **more: Any) -> Any:
        """The answer's JSON; it has to have this status."""
        async with self.http.http.request(method, self.http.url + path, headers=bearer(key), **more) as answer:
            text = await answer.text()
            assert answer.status == status, f"{method} {path}: {answer.status} {text}"
            return await answer.json() if text else None

    async def webhook(self, key: str, url: str, **more: Any) -> dict[str, Any]:
        """A new endpoint, with its secret."""
        return dict(await self.ask("post", "/v1/webhooks", key, 201, json={"url": url, **more}))

    async def test(self, key: str, webhook: dict[str, Any]) -> str:
        """The id of a test that is on its way."""
        return str((await self.ask("post", f"/v1/webhooks/{webhook['id']}/test", key, 202))["id"])

    async def delivery(
        self, key: str, webhook: dict[str, Any], delivery: str, holds: Callable[[Any], bool], *, seconds: float = 20
    ) -> Any:
        """A delivery as the API shows it, once it holds."""
        found = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    listed = await self.ask("get", f"/v1/webhooks/{webhook['id']}/deliveries", key, 200)
                    found = next((one for one in listed["items"] if one["id"] == delivery), None)
                    if found is not None and holds(found):
                        return found
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s: {found}") from None


async def disabled(house: WebhookHouse, key: str, path: str, cause: str) -> None:
    """Returns once the endpoint that this path shows is disabled; it has to be for this cause."""
    async with asyncio.timeout(20):
        while (shown := await house.ask("get", path, key, 200))["state"] == "active":
            await asyncio.sleep(0.03)
    assert shown["disabledBecause"] == cause


async def letters(house: WebhookHouse, endpoint: str) -> list[dict[str, str]]:
    """The headers of what was kept of this endpoint."""
    log, found = EventLog(house.http.house.kafka, prefix=house.http.house.prefix), []
    async for records in log.read_on(topics.DEAD_LETTERS.name, 0, 0):
        for record in records:
            if record.key == endpoint:
                headers = first(record.headers)
                event = events.WEBHOOK.decode(headers["ce_type"], record.value)
                assert isinstance(event, CallbackAbandoned)
                assert event.callback.body, "everything that is needed to act"
                found.append(headers)
    await log.close()
    return found


@asynccontextmanager
async def webhook_house(
    servers: Servers, database: str, prefix: str, folder: Path, **said: Any
) -> AsyncIterator[WebhookHouse]:
    """All of it, until the block ends. `said`: settings."""
    settings = {"allow_private_hosts": True, "retry_scale": SCALE, "webhook_timeout": SECONDS} | said
    async with http_house(servers, database, prefix, folder, **settings) as http:
        yield WebhookHouse(http)
