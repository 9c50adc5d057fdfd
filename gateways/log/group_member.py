"""Keeps one consumer a member of its group, and replaces it where it is none any more.

aiokafka keeps its partitions for as long as it can't reach a coordinator, and there are ways in which it never joins again:
a member that the group has given up goes on deciding beside its successor, which costs both of them most of their work.
And FastStream starts a consume loop that failed again at once, on the same consumer, and tells of it once an hour; one that
was cancelled it does not start again at all. So here is watched, for each consumer by itself,

- that its group has confirmed it (a heartbeat was answered, or partitions were assigned) within two session time-outs, or
  else that the coordinator, asked by a client made for that, still lists it. Where nobody can be asked, nobody else has its
  partitions either, and giving them up would only make the end of an outage later;
- that the task which takes from it lives.

Else the consumer is thrown away, loudly; the loop is told that it has lost its partitions, as in any rebalance, and a new
consumer joins. Nothing is passed over or counted twice by that: a loop seeks to its own position on assignment.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faststream.kafka.subscriber.usecase import LogicSubscriber

from gateways.log.kafka import client_settings

log = logging.getLogger(__name__)

#: Session time-outs without a word of the group after which it is asked, and those that one try to join may take.
SILENT_SESSIONS: Final = 2
JOINING_SESSIONS: Final = 5
#: Seconds between two looks.
LOOK_SECONDS: Final = 0.5
#: Seconds that a consumer gets to leave its group. One whose coordinator does not answer would try for ever.
LEAVE_SECONDS: Final = 2.0
#: Seconds that the group gets to tell whom it knows.
ASK_SECONDS: Final = 10.0
#: Seconds between two tries to join, at the most.
RETRY_SECONDS: Final = 2.0
#: Seconds before a consumer is replaced that did not last, at the most, and for how long one lasts that is sound.
LONGEST_PAUSE_SECONDS: Final = 30.0
SOUND_SECONDS: Final = 60.0


class Follows(Protocol):
    """The loop's side of it. `confirmed_at` is when (the event loop's clock) the group last said that it is a member."""

    confirmed_at: float

    async def lost(self) -> None:
        """Its partitions are no longer its own."""


class GroupMember:
    """A subscriber of FastStream that has been started, and the loop behind it."""

    def __init__(
        self, bootstrap: str, subscriber: LogicSubscriber[Any], follows: Follows, *, session_seconds: float
    ) -> None:
        self._bootstrap = bootstrap
        self._subscriber = subscriber
        self._follows = follows
        self._session_seconds = session_seconds
        self._pause = LOOK_SECONDS
        self._began = 0.0
        self._asked_at = 0.0

    async def watch(self) -> None:
        """Looks after the consumer until it is cancelled."""
        self._attend()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if ailment := await self._ailment():
                    log.error("a consumer is replaced", extra={"group": self._subscriber.group_id, "cause": ailment})
                    await self._replace()
            except Exception:
                log.exception("a consumer can't be replaced yet", extra={"group": self._subscriber.group_id})

    async def _ailment(self) -> str:
        """What is wrong with the consumer; empty where nothing is."""
        tasks = self._subscriber.tasks
        if not tasks or any(task.done() for task in tasks):
            return "the task that takes from it has ended"
        now, session = asyncio.get_running_loop().time(), self._session_seconds
        if now < max(self._follows.confirmed_at + SILENT_SESSIONS * session, self._asked_at + session):
            return ""
        self._asked_at = now
        return "its group does not know it any more" if await self._is_forgotten() else ""

    async def _is_forgotten(self) -> bool:
        """Asks the coordinator whom it knows; False where no coordinator answers."""
        consumer, group = self._subscriber.consumer, self._subscriber.group_id or ""
        coordinator: Any = consumer and consumer._coordinator  # noqa: SLF001 - aiokafka 0.14 tells it nowhere else
        member = coordinator.member_id if coordinator else ""
        answer: Any
        asking = AIOKafkaAdminClient(**client_settings(self._bootstrap))
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await asking.start()
                (answer,) = await asking.describe_consumer_groups([group])
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("a group can't be asked for its members", extra={"group": group, "cause": repr(error)})
            return False
        finally:
            await asking.close()
        ((failed, _, _, _, _, members, *_),) = answer.groups
        return not failed and member not in {found[0] for found in members}

    async def _replace(self) -> None:
        if asyncio.get_running_loop().time() - self._began > SOUND_SECONDS:
            self._pause = LOOK_SECONDS
        await self._end()
        await asyncio.sleep(random.uniform(self._pause / 2, self._pause))  # noqa: S311 - spreads members, hides nothing
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        await self._join()
        self._attend()
        log.warning("a new consumer has joined", extra={"group": self._subscriber.group_id})

    async def _join(self) -> None:
        """Tries until it has; whatever keeps it from that is told."""
        while True:
            try:
                async with asyncio.timeout(JOINING_SESSIONS * self._session_seconds):
                    return await self._subscriber.start()
            except Exception:
                log.exception("a consumer can't join yet", extra={"group": self._subscriber.group_id})
                await self._end()
            await asyncio.sleep(random.uniform(RETRY_SECONDS / 2, RETRY_SECONDS))  # noqa: S311 - as above

    def _attend(self) -> None:
        """Has the answers to heartbeats noted. Reaches into aiokafka 0.14, which tells nobody of them."""
        self._began = self._follows.confirmed_at = asyncio.get_running_loop().time()
        assert self._subscriber.consumer is not None
        coordinator: Any = self._subscriber.consumer._coordinator  # noqa: SLF001 - see above
        beat = coordinator._do_heartbeat  # noqa: SLF001 - see above

        async def noted() -> bool:
            if answered := bool(await beat()):
                self._follows.confirmed_at = asyncio.get_running_loop().time()
            return answered

        coordinator._do_heartbeat = noted  # noqa: SLF001 - see above

    async def _end(self) -> None:
        """Throws the consumer away first, so that it assigns nothing any more when the loop is told what it has lost."""
        consumer, self._subscriber.consumer = self._subscriber.consumer, None
        if consumer is not None:
            try:
                await _within(LEAVE_SECONDS, consumer.stop())
            finally:
                await _within(LEAVE_SECONDS, _throw_away(consumer))
        await self._follows.lost()
        await self._subscriber.stop()


async def _throw_away(consumer: AIOKafkaConsumer) -> None:
    """Ends what goes on in a consumer that did not stop. Reaches into aiokafka 0.14, whose `stop` does nothing twice."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001 - see above
    if coordinator is not None:
        await _cancelled(coordinator._coordination_task)  # noqa: SLF001 - see above
        await _cancelled(coordinator._heartbeat_task)  # noqa: SLF001 - see above
        await _cancelled(coordinator._commit_refresh_task)  # noqa: SLF001 - see above
    if fetcher is not None:
        await asyncio.gather(fetcher.close(), return_exceptions=True)
    await consumer._client.close()  # noqa: SLF001 - see above


async def _cancelled(task: "asyncio.Task[Any] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Does what can be done in so many seconds; what goes wrong is told, and matters no more."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if outcome is not None:
        log.info("a consumer was ended without its group", extra={"cause": repr(outcome)})
