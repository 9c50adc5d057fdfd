"""Whether everything behind the HTTP surface answers: what `/readyz` says, dependency by dependency."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient

from gateways.http.services import Services
from gateways.log.kafka import client_settings
from projections.catalogue import of_topic

CHECK_SECONDS: Final = 3.0
#: Seconds between looks while a request waits for readiness.
LOOK_SECONDS: Final = 0.1
#: Seconds a projection may stand still before the end of the log before it counts as behind.
STILL_SECONDS: Final = 10.0

Place = tuple[str, str, int]


class NotReady(Exception):
    """A dependency doesn't answer as it has to; the sentence says which way."""


class Readiness:
    """Asks every dependency, all at once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stood: dict[Place, tuple[int, float]] = {}
        self._checks: dict[str, Callable[[], Awaitable[None]]] = {
            "postgres": self._postgres,
            "kafka": self._kafka,
            "projections": self._projections,
            **services.checks,
        }

    async def report(self, wait_seconds: float = 0.0) -> tuple[bool, dict[str, dict[str, Any]]]:
        """Whether all are ready, and for each dependency `ok` and what is wrong; waits so long for all to be."""
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            names = list(self._checks)
            found = dict(zip(names, await asyncio.gather(*map(self._check, names)), strict=True))
            ready = all(said["ok"] for said in found.values())
            if ready or asyncio.get_running_loop().time() >= deadline:
                return ready, found
            await asyncio.sleep(LOOK_SECONDS)

    async def _check(self, name: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._checks[name]()
        except NotReady as error:
            return {"ok": False, "cause": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever keeps a dependency from answering is what we report
            return {"ok": False, "cause": type(error).__name__}
        return {"ok": True}

    async def _postgres(self) -> None:
        await self._services.pool.fetchval("select 1")

    async def _kafka(self) -> None:
        if self._services.command_log.overdue:
            raise NotReady("an append is overdue")
        if self._services.kafka is not None:
            client = AIOKafkaClient(**client_settings(self._services.kafka))
            try:
                await client.bootstrap()
            finally:
                await client.close()

    async def _projections(self) -> None:
        tail = self._services.tail
        if tail is None:
            return
        if not tail.following.is_set():
            raise NotReady("the log is not being followed yet")
        for topic, partition in tail.partitions:
            for projection in of_topic(topic):
                self._keeps_up((projection.name, topic, partition), tail.position(topic, partition))

    def _keeps_up(self, place: Place, end: int) -> None:
        now = asyncio.get_running_loop().time()
        at = self._services.folded.positions.get(place)
        if at is None:
            raise NotReady(f"{place[0]} has not begun to fold {place[1]}-{place[2]}")
        stood_at, since = self._stood.get(place, (-1, now))
        if at >= end or at != stood_at:
            since = now
        self._stood[place] = (at, since)
        if now - since > STILL_SECONDS:
            raise NotReady(f"{place[0]} stands {end - at} records before the end of {place[1]}-{place[2]}")
