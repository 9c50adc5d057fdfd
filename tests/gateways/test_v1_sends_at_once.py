"""What one caller asks holds up nobody else, and what is repeated at once, or before it is decided, is one mail."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from domain.fields import Digest
from domain.mail_wire_addresses import wire_address
from gateways.http.v1.send_people import MOST_NAMED
from gateways.local_servers import Servers
from gateways.log.command_log import CommandLog, OutcomeUnknown
from gateways.stores import send_keys
from gateways.stores.rates import Limit
from schemas.ids import new_id
from tests.gateways.test_v1_operations import Behind, deciding
from tests.support.asked_sends import SEND, AskedSends, Writer, asked_sends
from tests.support.http_house import served
from tests.support.waiting import until

HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 8_000)))


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AskedSends]:
    async with asked_sends(servers, "at_once", tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
async def ada(house: AskedSends) -> Writer:
    return await house.writer()


def later() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


# ── what takes long to read ───────────────────────────────────────────────────────────────────────────────────────────


async def held_up(ada: Writer, **more: Any) -> tuple[int, float]:
    """The status of the answer, and for how many seconds at a time nobody else was answered."""
    loop, longest = asyncio.get_running_loop(), 0.0
    asked = asyncio.ensure_future(ada.house.asked("POST", SEND, ada.key, data=orjson.dumps(ada.mail(**more))))
    before = loop.time()
    while not asked.done():
        await asyncio.sleep(0.005)
        longest, before = max(longest, loop.time() - before), loop.time()
    return (await asked)[0], longest


@pytest.mark.parametrize(
    "more",
    [
        {"to": f"a@{HAN}.com"},
        {"to": [f"a@{HAN[number : number + 300]}.com" for number in range(900)]},
        {"replyTo": [f"a@{HAN[number : number + 300]}.com" for number in range(900)]},
    ],
    ids=("one", "many", "answers"),
)
async def test_a_domain_that_is_too_long_holds_up_nobody(ada: Writer, more: dict[str, Any]) -> None:
    status, longest = await held_up(ada, **more)
    assert status == 400
    assert longest < 2


async def test_many_international_domains_hold_up_nobody(ada: Writer) -> None:
    long = [
        f"a@{'.'.join(HAN[at + row * 1500 : at + row * 1500 + 15] for row in range(4))}" for at in range(MOST_NAMED)
    ]

    def alone() -> float:
        began = time.perf_counter()
        for address in long:
            wire_address(address)
        return time.perf_counter() - began

    before = alone()
    status, longest = await held_up(ada, to=long)
    assert status == 422
    assert longest < max(min(before, alone()) / 2, 0.5)


# ── what is repeated ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_fifty_at_once_with_one_key_use_up_one_of_a_users_sends(house: AskedSends, ada: Writer) -> None:
    more: dict[str, Any] = {"rates_on": True, "send_limit": Limit("sends", 60, 60), "metrics": CollectorRegistry()}
    async with served(replace(house.http.services, **more)) as url:

        async def asked(key: str) -> Any:
            headers = {"Idempotency-Key": key}
            return await house.asked("POST", SEND, ada.key, url=url, json=mail, headers=headers)

        mail = ada.mail(scheduledAt=later())
        for number in range(15):
            assert (await asked(f"before-{number}"))[0] == 202
        said = await asyncio.gather(*[asked("one") for _ in range(50)])
        assert [status for status, _, _ in said] == [202] * 50
        assert len({body["messageId"] for _, body, _ in said}) == 1
        assert [headers.get("Idempotency-Replayed") for _, _, headers in said].count("true") == 49
        assert [(await asked(f"after-{number}"))[0] for number in range(44)] == [202] * 44
        assert (await asked("too many"))[0] == 429
        assert (await asked("one"))[0] == 202
    assert await ada.count() == 15 + 1 + 44


class Delayed(CommandLog):
    """A log that has what is appended only once its gate is open, and whose word of that is lost."""

    def __init__(self, gate: asyncio.Event, *said: Any, **more: Any) -> None:
        super().__init__(*said, **more)
        self._gate = gate
        self.appended: list[asyncio.Task[Any]] = []

    async def append(self, *said: Any, **more: Any) -> tuple[int, int]:
        self.appended.append(asyncio.ensure_future(self._once_open(*said, **more)))
        raise OutcomeUnknown("the connection was reset")

    async def _once_open(self, *said: Any, **more: Any) -> None:
        await self._gate.wait()
        await super().append(*said, **more)


async def test_a_key_names_one_mail_before_anything_is_decided(house: AskedSends, ada: Writer) -> None:
    """Whichever of two processes is asked, what it answers can be read in the end, and it is one mail."""
    gate, kafka, prefix = asyncio.Event(), house.http.house.kafka, house.http.house.prefix
    logs = [Delayed(gate, kafka, prefix=prefix) for _ in range(2)]
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(deciding(house.http, log, house.http.services.folded)) for log in logs]
        mail = ada.mail(scheduledAt=later(), body="x" * 300_000)
        said = [
            await house.asked("POST", SEND, ada.key, url=url, json=mail, headers={"Idempotency-Key": "one"})
            for url in (*urls, *urls)
        ]
        assert [(status, body["status"]) for status, body, _ in said] == [(202, "pending")] * 4
        gate.set()
        await asyncio.gather(*logs[0].appended, *logs[1].appended)
        named = {body["messageId"] for _, body, _ in said}
        for _, body, _ in said:
            assert (await done(house, ada, body["operationId"]))["messageId"] == body["messageId"]
    for log in logs:
        await log.close()
    assert len(named) == 1
    for message in named:
        await ada.get(message)
        status, raw, _ = await house.asked("GET", f"/v1/messages/{message}/raw", ada.key)
        assert (status, len(raw["body"])) == (200, 300_000), "no repetition has taken its blob away"
    assert await ada.count() == 1


async def done(house: AskedSends, ada: Writer, operation: str) -> dict[str, Any]:
    """What has come of it."""
    found: dict[str, Any] = {}

    async def told() -> bool:
        found.update((await house.asked("GET", f"/v1/operations/{operation}", ada.key))[1])
        return found["status"] != "pending"

    await until(told)
    assert found["status"] == "done", found
    return found


async def test_a_key_whose_request_was_refused_names_the_same_mail_when_it_is_asked_again(house: AskedSends) -> None:
    bob, key = await house.writer(connected=False), new_id("key")
    status, body, _ = await bob.send(key=key)
    assert (status, body["code"]) == (400, "no_active_connection")
    await bob.connect()
    services = house.http.services
    async with deciding(house.http, services.command_log, Behind(services.folded)) as url:
        mail, headers = bob.mail(scheduledAt=later()), {"Idempotency-Key": key}
        status, body, _ = await house.asked("POST", SEND, bob.key, url=url, json=mail, headers=headers)
    assert (status, body["status"]) == (202, "pending")
    assert (await done(house, bob, body["operationId"]))["messageId"] == body["messageId"]
    assert (await bob.get(body["messageId"]))["status"] == "scheduled"


async def test_a_key_that_nothing_was_decided_on_for_long_names_another_mail(house: AskedSends) -> None:
    """Lists are in the order of ids, which hold the time they were made at."""
    pool, key = house.http.services.pool, Digest("a key")
    assert [await send_keys.named(pool, key, send, seconds=60) for send in ("snd_1", "snd_2")] == ["snd_1", "snd_1"]
    await pool.execute("update send_keys set at = at - interval '61 seconds'")
    assert [await send_keys.named(pool, key, send, seconds=60) for send in ("snd_3", "snd_4")] == ["snd_3", "snd_3"]
