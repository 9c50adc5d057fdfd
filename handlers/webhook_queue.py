"""Puts attempts at deliveries where they wait for their time, and sees to what follows when one is given up.

What is to be tried follows from `webhook.events`: a delivery that was requested, deferred, or is sent again. It waits in the
tier that fits the time left; `webhook_tiers.py` moves it on.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from domain.callbacks import CallbackAbandoned, CallbackDeferred, CallbackRequested, CallbackResent
from domain.webhooks import DisableWebhook
from handlers.command_log import AppendsCommands
from handlers.context import KeepsDeadLetters
from handlers.effector import Effect
from handlers.tiers import SLACK_SECONDS
from schemas import commands, events, topics
from schemas.envelope import Headers, Record, command_headers, first, passed_on
from schemas.ids import derived_id
from schemas.topics import WEBHOOK_DELIVER, WEBHOOK_RETRY
from schemas.vocabulary import encode
from schemas.webhook_queue import QUEUE, Attempt

#: Why a delivery was given up that its receiver should have had: then a letter is kept, and the endpoint is disabled.
IN_VAIN: Final = {"gone": "gone", "attempts_exhausted": "abandoned"}


class AppendsRecords(Protocol):
    async def append(
        self, topic: str, key: str, value: bytes, headers: Headers, *, lapses: bool = True
    ) -> tuple[int, int]: ...


class Queue:
    """The topics in which attempts wait. `scale` is the factor on how long each tier is."""

    def __init__(self, log: AppendsRecords, *, scale: float = 1.0) -> None:
        self._log = log
        self._scale = scale

    def tier(self, left: timedelta) -> str:
        """Where what is due after so long waits."""
        if left <= timedelta(0):
            return WEBHOOK_DELIVER.name
        left += self.length(SLACK_SECONDS)
        fitting = [topic for seconds, topic in WEBHOOK_RETRY.items() if self.length(seconds) <= left]
        return (fitting or [*WEBHOOK_RETRY.values()][-1:])[0].name

    def length(self, seconds: float) -> timedelta:
        """How long a tier of so many seconds really is."""
        return timedelta(seconds=seconds * self._scale)

    async def put(self, work: Attempt, trace: Mapping[str, str]) -> None:
        """Has it tried when it is due. `trace` holds the headers of the record it follows from: its trace goes on, and the id
        derives from that record's, of which nothing else to try follows.

        Raises where the log can't be reached; then it may be there all the same.
        """
        await self._append(work, derived_id("wha", trace["ce_id"]), trace)

    async def pass_on(self, work: Attempt, found: Mapping[str, str]) -> None:
        """Has the same attempt, whose headers these are, wait where it does next; raises as `put` does."""
        await self._append(work, found["ce_id"], found, passed_on(found))

    async def _append(self, work: Attempt, name: str, trace: Mapping[str, str], *more: tuple[str, bytes]) -> None:
        now = datetime.now(UTC)
        headers = command_headers(
            command_id=name, kind=QUEUE.types[Attempt], subject=work.callback.delivery, at=now, trace=trace
        )
        topic = self.tier(work.due - now)
        await self._log.append(topic, work.callback.key, encode(work), [*headers, *more], lapses=False)


class Waits:
    """The effect that puts into the queue what is to be tried."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def act(self, event: CallbackRequested | CallbackDeferred | CallbackResent, record: Record) -> None:
        headers = first(record.headers)
        due = datetime.fromisoformat(headers["ce_time"])
        match event:
            case CallbackRequested(callback):
                work = Attempt(callback, 1, due, event.since)
            case CallbackDeferred(callback, attempt):
                work = Attempt(callback, attempt + 1, event.next_at, event.since)
            case CallbackResent(callback, attempt):
                work = Attempt(callback, attempt, due, event.since)
        await self._queue.put(work, headers)


class GivesUp:
    """The effect that keeps what could not be delivered, and disables the endpoint. To do it twice changes nothing."""

    def __init__(self, log: AppendsCommands, letters: KeepsDeadLetters) -> None:
        self._log = log
        self._letters = letters

    async def act(self, event: CallbackAbandoned, record: Record) -> None:
        cause: Any = IN_VAIN.get(event.cause)
        if cause is None:
            return
        await self._letters.keep(record, cause=f"webhook_{cause}")
        if event.callback.endpoint is not None:
            await self._log.command(
                topics.ACCOUNT_COMMANDS.name,
                event.callback.account,
                DisableWebhook(event.callback.account, event.callback.endpoint, cause),
                vocabulary=commands.ACCOUNT,
                subject=event.callback.endpoint,
                command_id=f"{event.callback.delivery}.{event.attempt}.disable",
                trace=first(record.headers),
            )


def effect(queue: Queue, log: AppendsCommands, letters: KeepsDeadLetters) -> Effect:
    """What follows from what is decided about deliveries."""
    waits, gives_up = Waits(queue), GivesUp(log, letters)

    async def act(event: Any, record: Record) -> None:
        await (gives_up if isinstance(event, CallbackAbandoned) else waits).act(event, record)

    wants = (CallbackRequested, CallbackDeferred, CallbackResent, CallbackAbandoned)
    return Effect("webhook-queue", topics.WEBHOOK_EVENTS.name, events.WEBHOOK, wants, act, concurrency=64)
