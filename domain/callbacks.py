"""Deliveries of webhooks: each thing that somebody is told of, the attempts to tell them, and what came of each.

A delivery's id is what its receiver sees as `webhook-id`: it derives from the event and the endpoint, and stays the same over
all attempts and when it is sent again, so a receiver can know what it has had before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from domain.fields import Sealed
from domain.spread import after, share_of

#: The waits after each attempt that was in vain (Standard Webhooks, "retry schedule"): there is one attempt more.
WAITS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
ATTEMPTS: Final = len(WAITS) + 1
#: Up to this share longer: what failed together does not come back together.
SPREAD: Final = 0.1
#: The longest that all waits can come to. A receiver that keeps each attempt waiting lets most deliveries have far fewer
#: than all of theirs; those end by this.
LONGEST_TRIED: Final = sum(WAITS, timedelta()) * (1 + SPREAD)
#: A receiver's Retry-After counts up to this.
LONGEST_ASKED: Final = timedelta(hours=24)

#: Why an attempt had no answer that counts. `endpoint_…`: none was made, for nobody wants one any more. `expired`: none was
#: made, for its receiver was failing when the time for all of them was over.
CallbackError = Literal[
    "unreachable",
    "timed_out",
    "answer_unreadable",
    "redirected",
    "refused",
    "endpoint_removed",
    "endpoint_disabled",
    "expired",
]
AbandonedBecause = Literal["gone", "attempts_exhausted", "endpoint_removed", "endpoint_disabled"]


@dataclass(frozen=True, slots=True)
class Callback:
    """What is told, and to whom: an endpoint of the account's, or where there is none a URL that a send brought along.

    `body` is the exact text that is signed and sent. `url` is sealed under the data key of `user`.
    """

    delivery: str
    account: str
    endpoint: str | None
    type: str
    body: str
    message: str | None = None
    url: Sealed | None = None
    user: str | None = None

    @property
    def key(self) -> str:
        """What orders it among others, and is spared while its receiver is in trouble."""
        return self.endpoint or self.account


@dataclass(frozen=True, slots=True)
class Receivers:
    """Who is to be told: endpoints, and a send's `callbackUrl`, sealed, where none of the endpoints has the same URL.

    `known` is False of a send that the tables don't show.
    """

    endpoints: Sequence[str]
    callback: Sealed | None = None
    known: bool = True


@dataclass(frozen=True, slots=True)
class RequestCallback:
    callback: Callback


@dataclass(frozen=True, slots=True)
class ReportCallback:
    """What came of one attempt. `attempt` counts from 1, over all times that the delivery was sent again."""

    delivery: str
    attempt: int
    at: datetime
    took_ms: int
    scale: float
    status: int | None = None
    error: CallbackError | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class ResendCallback:
    """Sends a delivery once more, whatever became of it; `callback` is a copy from the read model."""

    callback: Callback
    by: str


CallbackCommand = RequestCallback | ReportCallback | ResendCallback


@dataclass(frozen=True, slots=True)
class CallbackRequested:
    """The account is to be told of this."""

    callback: Callback
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallbackDelivered:
    """The receiver answered with a status of 200 to 299."""

    delivery: str
    account: str
    endpoint: str | None
    attempt: int
    at: datetime
    took_ms: int
    status: int


@dataclass(frozen=True, slots=True)
class CallbackDeferred:
    """The attempt was in vain; the next is at `next_at`."""

    callback: Callback
    attempt: int
    at: datetime
    took_ms: int
    next_at: datetime
    status: int | None = None
    error: CallbackError | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallbackAbandoned:
    """It is not tried any more, unless somebody asks for that."""

    callback: Callback
    attempt: int
    at: datetime
    took_ms: int
    cause: AbandonedBecause
    status: int | None = None
    error: CallbackError | None = None


@dataclass(frozen=True, slots=True)
class CallbackResent:
    """Somebody had it sent once more, with a full number of attempts: the first of them is `attempt`."""

    callback: Callback
    attempt: int
    by: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallbackRefused:
    """Nothing is sent once more: there is no such delivery, or it is on its way, not having been tried yet."""

    delivery: str
    account: str
    reason: Literal["unknown", "on_its_way"]


CallbackEvent = (
    CallbackRequested | CallbackDelivered | CallbackDeferred | CallbackAbandoned | CallbackResent | CallbackRefused
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """`attempts`: those on record; `earlier`: those of them that were made before it was sent again. `since`: from when on
    its age counts; None where nobody has said.

    `callback` is None where it has ended: nobody needs to know any more what it said.
    """

    callback: Callback | None
    attempts: int = 0
    earlier: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes, as things stand: `subject` and `versions` name the secrets that sign it, the newest first.

    `attempts`: those that are on record already. `refused`: why none is to be made.
    """

    url: str = field(repr=False, default="")
    subject: str = ""
    versions: tuple[int, ...] = ()
    attempts: int = 0
    refused: Literal["endpoint_removed", "endpoint_disabled"] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a receiver. `retry_after` is in seconds."""

    took_ms: int
    status: int | None = None
    error: CallbackError | None = None
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


Key = tuple[str, str]
Documents = Mapping[Key, Delivery | None]


def needs(command: CallbackCommand, key: str) -> list[Key]:
    """The documents a decision on this command reads."""
    del key
    return [_place(command.delivery if isinstance(command, ReportCallback) else command.callback.delivery)]


def decide(documents: Documents, command: CallbackCommand, now: datetime) -> list[CallbackEvent]:
    """What follows from this command, as things stand. What an effect says twice changes nothing."""
    delivery = documents.get(needs(command, "")[0])
    match command:
        case RequestCallback(callback):
            return [CallbackRequested(callback, now)] if delivery is None else []
        case ResendCallback(callback, by):
            if delivery is None:
                return [CallbackRefused(callback.delivery, callback.account, "unknown")]
            if delivery.callback is not None and delivery.attempts == delivery.earlier:
                # However often it is asked for, a receiver is called once for it.
                return [CallbackRefused(callback.delivery, callback.account, "on_its_way")]
            return [CallbackResent(callback, delivery.attempts + 1, by, now)]
        case ReportCallback():
            if delivery is None or delivery.callback is None or _is_stale(delivery, command):
                return []
            return [_reported(delivery, delivery.callback, command, now)]


def is_over(since: datetime, at: datetime, scale: float) -> bool:
    """Whether the time for all attempts is over then, however few were made, of what has been tried since."""
    return at >= after(since, LONGEST_TRIED * scale)


def _is_stale(delivery: Delivery, said: ReportCallback) -> bool:
    """Whether it says nothing new, or is about work from before the delivery was sent again: that has work of its own."""
    return said.attempt != delivery.attempts + 1 or (said.error == "expired" and not _has_had_its_time(delivery, said))


def _has_had_its_time(delivery: Delivery, said: ReportCallback) -> bool:
    """By the clock of who reports, who has asked the same; by their word where nobody has said from when on it counts."""
    if delivery.since is None:
        return said.error == "expired"
    return is_over(delivery.since, said.at, said.scale)


def _reported(delivery: Delivery, callback: Callback, said: ReportCallback, now: datetime) -> CallbackEvent:
    if said.status is not None and 200 <= said.status < 300:
        return CallbackDelivered(
            said.delivery, callback.account, callback.endpoint, said.attempt, said.at, said.took_ms, said.status
        )
    number = said.attempt - delivery.earlier
    cause = _end(said, over=number >= ATTEMPTS or _has_had_its_time(delivery, said))
    if cause is not None:
        return CallbackAbandoned(callback, said.attempt, said.at, said.took_ms, cause, said.status, said.error)
    ours, next_at = (
        next_try(f"{said.delivery}/{said.attempt}", number, now, retry_after=asked, scale=said.scale)
        for asked in (None, said.retry_after)
    )
    # What a receiver asks for is no part of its time.
    since = (delivery.since or now) + (next_at - ours)
    return CallbackDeferred(callback, said.attempt, said.at, said.took_ms, next_at, said.status, said.error, since)


def _end(said: ReportCallback, *, over: bool) -> AbandonedBecause | None:
    """Why it is not tried again; None where it is. `over`: whether its attempts are used up, or its time."""
    match said.error:
        case "endpoint_removed" | "endpoint_disabled" as cause:
            return cause
    if said.status == 410:
        return "gone"
    return "attempts_exhausted" if over else None


def next_try(name: str, number: int, now: datetime, *, retry_after: float | None, scale: float) -> datetime:
    """When to try again after so many attempts. Where a receiver asks for a longer wait it gets that, which is not scaled."""
    ours = WAITS[min(number, len(WAITS)) - 1] * scale * (1 + SPREAD * share_of(name))
    asked = timedelta(seconds=min(max(retry_after or 0, 0), LONGEST_ASKED.total_seconds()))
    return after(now, max(ours, asked))


def touches(event: CallbackEvent) -> list[Key]:
    """The documents that folding this event changes."""
    match event:
        case CallbackRefused():
            return []
        case CallbackDelivered():
            return [_place(event.delivery)]
        case _:
            return [_place(event.callback.delivery)]


def evolve(documents: Documents, event: CallbackEvent) -> dict[Key, Delivery | None]:
    """The documents this event changes, as they are after it."""
    if isinstance(event, CallbackRefused):
        return {}
    (key,) = touches(event)
    if isinstance(event, CallbackRequested):
        return {key: Delivery(event.callback, since=event.since)}
    before = documents.get(key) or Delivery(None)
    match event:
        case CallbackResent():
            return {key: Delivery(event.callback, before.attempts, before.attempts, event.since)}
        case CallbackDeferred():
            return {key: replace(before, attempts=event.attempt, since=event.since or before.since)}
        case CallbackDelivered() | CallbackAbandoned():
            return {key: Delivery(None, event.attempt, before.earlier)}


def _place(delivery: str) -> Key:
    return "delivery", delivery
