"""Makes the attempts: asks a receiver, and reports what came of it.

One receiver in trouble must not hold up another, nor its own deliveries the queue. Each has a few attempts in flight. While
it fails it has one, and what comes for it meanwhile goes back to a retry tier as it is, without counting as an attempt; so
does what comes for one that asked to be left alone (429, 503), or has very much waiting. URLs that sends bring along are of
many hosts and in one lane, that of their account: there a few wait for each host, and the lane is wide enough for several
hosts of which every attempt hangs.

A receiver that keeps its one attempt hanging is asked too seldom for deliveries to use up their attempts. So once the time
for all of them is over, what would be put off is reported as that: the decider gives it up, as after the last attempt.

It will be asked again after a crash: then the receiver may hear the same `webhook-id` once more, and what was reported is
known. At least once is what is promised.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from urllib.parse import urlsplit

from domain.callbacks import LONGEST_ASKED, Answer, Callback, ReportCallback, Target, is_over
from handlers.command_log import AppendsCommands
from handlers.effector import Effect, same_work
from handlers.webhook_queue import Queue
from schemas import commands, topics
from schemas.envelope import Record, first
from schemas.webhook_queue import QUEUE, Attempt

log = logging.getLogger(__name__)

NAME: Final = "webhook-deliver"
#: Attempts in flight in all, and of one endpoint that is well.
AT_ONCE: Final = 512
IN_FLIGHT: Final = 8
#: Deliveries of one lane that wait here; more go to a retry tier.
WAITING: Final = 200
#: Of URLs that an account's sends brought along: deliveries begun at once, and those of one host that wait among them.
OF_ACCOUNT: Final = 96
OF_HOST: Final = 8
#: What may be unfinished of a partition.
UNFINISHED: Final = 5000
#: Seconds for which what can't be tried now is put off, at least and at most; a scale shortens them.
PUT_OFF_SECONDS: Final = 5.0
LONGEST_PUT_OFF_SECONDS: Final = 300.0
#: Those that were put off come back one after the other, so that each finds its receiver free: so many of the attempts that
#: its receiver fails apart, and so many seconds at least.
ATTEMPTS_APART: Final = 2
SECONDS_APART: Final = 0.02
#: Statuses by which a receiver asks to be left alone.
SLOW_DOWN: Final = frozenset({429, 503})
#: What the ids of endpoints begin with, which are keys as those of accounts are.
ENDPOINT: Final = "whk_"
#: Receivers that are remembered.
REMEMBERED: Final = 10_000
#: Seconds that what has begun gets where the process ends.
DRAIN_SECONDS: Final = 5.0


class FindsTargets(Protocol):
    async def target(self, callback: Callback) -> Target:
        """Where it goes, as things stand. Raises where Postgres or the keys can't be reached."""
        ...


class AsksReceivers(Protocol):
    async def post(self, target: Target, callback: Callback, trace: Mapping[str, str]) -> Answer:
        """Signs and sends it. Whatever goes wrong is an answer, too."""
        ...


class Measures(Protocol):
    def attempted(self, outcome: str, seconds: float) -> None: ...

    def put_off(self) -> None: ...


@dataclass(slots=True)
class Receiver:
    """How one is doing. `fails_in`: the seconds that its last attempt took to fail, None where it did not. By the event
    loop's clock: `rests_until`, and `last_back`, when the last of those that were put off comes back.
    """

    in_flight: int = 0
    waiting: int = 0
    fails_in: float | None = None
    rests_until: float = 0.0
    last_back: float = 0.0
    ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def spared(self) -> bool:
        """Whether it is not to be asked at the moment."""
        return self.rests_until > asyncio.get_running_loop().time() or (
            self.fails_in is not None and self.in_flight > 0
        )

    async def begins(self) -> bool:
        """Whether another attempt may be made, which is in flight then; waits for its turn where a few wait at most."""
        if not self.spared and self.in_flight >= IN_FLIGHT and self.waiting < OF_HOST:
            self.waiting += 1
            try:
                async with self.ended:
                    await self.ended.wait_for(lambda: self.spared or self.in_flight < IN_FLIGHT)
            finally:
                self.waiting -= 1
        if self.spared or self.in_flight >= IN_FLIGHT:
            return False
        self.in_flight += 1
        return True

    def comes_back(self, scale: float) -> float:
        """Seconds for which one more is put off, behind all those that were put off before."""
        now = asyncio.get_running_loop().time()
        apart = max(ATTEMPTS_APART * (self.fails_in or 0), SECONDS_APART)
        at = max(now + max(PUT_OFF_SECONDS * scale, apart), self.rests_until, self.last_back + apart)
        # At the most: very many of a receiver that is slow to fail come back together, and most of them once more.
        self.last_back = min(at, max(now + LONGEST_PUT_OFF_SECONDS * scale, self.rests_until))
        return self.last_back - now

    async def ends(self) -> None:
        self.in_flight -= 1
        async with self.ended:
            self.ended.notify_all()


class Delivers:
    """What the effect needs: where to, how, and a way to report."""

    def __init__(
        self,
        targets: FindsTargets,
        receivers: AsksReceivers,
        queue: Queue,
        commands_: AppendsCommands,
        measures: Measures,
        *,
        scale: float = 1.0,
    ) -> None:
        self._targets = targets
        self._asks = receivers
        self._queue = queue
        self._log = commands_
        self._measures = measures
        self._scale = scale
        self._receivers: OrderedDict[str, Receiver] = OrderedDict()

    async def act(self, work: Attempt, record: Record) -> None:
        """Makes one attempt, unless its receiver is to be spared."""
        receiver, target = await self._whom(work)
        if not await receiver.begins():
            return await self._put_off(work, record, receiver, target)
        try:
            target = target or await self._targets.target(work.callback)
            if _is_reported(work, target):
                return None
            answer = await self._answer(target, work, record)
            self._learn(receiver, target, answer)
        finally:
            await receiver.ends()
        return await self._report(work, answer, record)

    async def put_off(self, work: Attempt, record: Record) -> None:
        """Has it wait in a tier, as the attempt that it was."""
        await self._put_off(work, record, *await self._whom(work))

    async def _whom(self, work: Attempt) -> tuple[Receiver, Target | None]:
        """Who is to be asked; and where, which takes a look in the tables, if that has to be known for it."""
        target = await self._targets.target(work.callback) if work.callback.endpoint is None else None
        return self._receiver(_receiver_of(work.callback, target)), target

    async def _put_off(self, work: Attempt, record: Record, receiver: Receiver, target: Target | None) -> None:
        """Unless somebody has made the attempt: what a worker left behind that died would go round for ever. What nobody
        wants any more, or has been tried for too long, ends here.
        """
        target = target or await self._targets.target(work.callback)
        if _is_reported(work, target):
            return
        now = datetime.now(UTC)
        since = work.since or now
        # One that is well may have very much waiting because no worker was there: it is asked, however late.
        is_given_up = receiver.fails_in is not None and is_over(since, now, self._scale)
        error = target.refused or ("expired" if is_given_up else None)
        if error is not None:
            await self._report(work, Answer(0, error=error), record)
            return
        due = now + timedelta(seconds=receiver.comes_back(self._scale))
        await self._queue.put(replace(work, due=due, since=since), first(record.headers))
        self._measures.put_off()

    async def _answer(self, target: Target, work: Attempt, record: Record) -> Answer:
        if target.refused is not None:
            return Answer(0, error=target.refused)
        began = asyncio.get_running_loop().time()
        answer = await self._asks.post(target, work.callback, first(record.headers))
        outcome = "delivered" if answer.ok else answer.error or "refused"
        self._measures.attempted(outcome, asyncio.get_running_loop().time() - began)
        return answer

    async def _report(self, work: Attempt, answer: Answer, record: Record) -> None:
        """Until it stands in the log: to ask the receiver again would be worse than to wait."""
        callback, pause = work.callback, 0.1
        report = ReportCallback(
            callback.delivery,
            work.attempt,
            datetime.now(UTC),
            answer.took_ms,
            self._scale,
            answer.status,
            answer.error,
            answer.retry_after,
        )
        while True:
            try:
                await self._log.command(
                    topics.WEBHOOK_COMMANDS.name,
                    callback.key,
                    report,
                    vocabulary=commands.WEBHOOK,
                    subject=callback.delivery,
                    command_id=f"{callback.delivery}.{work.attempt}.report",
                    trace=first(record.headers),
                )
            except Exception:
                log.exception("a report waits", extra={"delivery": callback.delivery})
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10)
            else:
                return

    def _receiver(self, key: str) -> Receiver:
        found = self._receivers.setdefault(key, Receiver())
        self._receivers.move_to_end(key)
        while len(self._receivers) > REMEMBERED and not next(iter(self._receivers.values())).in_flight:
            self._receivers.popitem(last=False)
        return found

    @staticmethod
    def _learn(receiver: Receiver, target: Target, answer: Answer) -> None:
        if target.refused is not None:
            # Whoever enables it again has mended it: nothing that waits is given up for what it was like before.
            receiver.fails_in = None
            return
        receiver.fails_in = None if answer.ok else answer.took_ms / 1000
        if answer.status in SLOW_DOWN:
            seconds = min(answer.retry_after or 0, LONGEST_ASKED.total_seconds())
            receiver.rests_until = asyncio.get_running_loop().time() + seconds


def _receiver_of(callback: Callback, target: Target | None) -> str:
    """Who is spared: an endpoint, or the host of a URL that a send brought along, for an account has many of those."""
    return callback.key if target is None else f"{callback.key} {urlsplit(target.url).netloc.lower()}"


def _is_reported(work: Attempt, target: Target) -> bool:
    return target.attempts >= work.attempt


def _width(record: Record) -> int:
    return IN_FLIGHT if record.key.startswith(ENDPOINT) else OF_ACCOUNT


def effect(delivers: Delivers) -> Effect:
    return Effect(
        NAME,
        topics.WEBHOOK_DELIVER.name,
        QUEUE,
        Attempt,
        delivers.act,
        concurrency=AT_ONCE,
        width=_width,
        waiting=WAITING,
        surplus=delivers.put_off,
        unfinished=UNFINISHED,
        truth=False,
        once=same_work,
        drain_seconds=DRAIN_SECONDS,
    )
