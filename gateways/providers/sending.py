"""What every provider has to be able to do so that a mail is sent by it, once, and what a failed call means for the mail.

One class for each provider; `tests/gateways/providers/sending_contract.py` says what it has to stand.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from domain.delivery import Answer, Deferred, Found, InDoubt, NotProven
from domain.outgoing import Access, OutgoingMail, Traces
from gateways.providers.calls import CallFailed

#: Seconds; who asks for more has said something else than how long to wait.
LONGEST_WAIT: Final = 24 * 3600
#: Characters of a provider's own text.
LONGEST_SAID: Final = 500
#: Of a mail that is written down in less than a few milliseconds, and so at once.
SHORT: Final = 32_768
#: Is told of units of a provider's quota.
Spends = Callable[[int], None]
Written = TypeVar("Written")
OUT_OF_TIME: Final = Deferred("out_of_time", counted=False)


class Notes(Protocol):
    """What has to be on record before any byte that could send the mail. What it raises is for the caller of `send`."""

    async def draft(self, draft: str, message: str | None = None) -> None:
        """The draft is on record when this returns; `message` is the id of the message within it."""
        ...

    async def transmission(self, *, left: bool = False) -> None:
        """It is on record, when this returns, that bytes which send the mail may leave without a draft.

        `left`: they may have left already, so that it is in doubt however this ends.
        """
        ...

    def seconds_left(self) -> float:
        """Until the attempt's deadline. At 0 or less nothing may begin."""
        ...


def uncounted(_: int) -> None:
    """Nobody counts."""


class SendsMail(Protocol):
    """One provider's way to send."""

    async def send(self, mail: OutgoingMail, access: Access, traces: Traces, notes: Notes) -> Answer:
        """Sends it at most once; every outcome is an answer. A draft in `traces` is what is sent, never another one."""
        ...

    async def look(self, traces: Traces, access: Access, *, last: bool, spends: Spends = uncounted) -> Found:
        """What can be shown of earlier attempts; sends nothing. `last`: there will be no other look, so it may take more.

        `spends` is told what each call takes of what the provider allows the mailbox, where that is counted by calls.
        """
        ...


async def written(mail: OutgoingMail, write: Callable[[OutgoingMail], Written]) -> Written:
    """What `write` makes of the mail, and raises; of a long one beside the loop."""
    return write(mail) if mail.length <= SHORT else await asyncio.to_thread(write, mail)


def not_sent(failure: CallFailed) -> Deferred:
    """Of a call that could not have sent the mail."""
    match failure.code:
        case "timed_out" | "answer_unreadable" | "rate_limited" | "server_error":
            return Deferred(failure.code, sensible(failure.retry_after), counted=failure.code != "rate_limited")
        case "answer_too_large":
            return Deferred("answer_unreadable")
        case _:
            return Deferred("unreachable")


def perhaps_sent(failure: CallFailed) -> Deferred | InDoubt:
    """Of the call that sends the mail: only where no byte of it has left is anything certain."""
    if not failure.sent:
        return not_sent(failure)
    match failure.code:
        case "timed_out" | "server_error":
            return InDoubt(failure.code)
        case "answer_unreadable" | "answer_too_large" | "rate_limited":
            return InDoubt("answer_unreadable")
        case _:
            return InDoubt("connection_lost")


def not_seen(failure: CallFailed) -> NotProven:
    """Of a call that looks for a mail."""
    match failure.code:
        case "timed_out" | "rate_limited" | "server_error":
            return NotProven(failure.code, sensible(failure.retry_after))
        case "answer_unreadable" | "answer_too_large":
            return NotProven("server_error")
        case _:
            return NotProven("unreachable")


def sensible(retry_after: float | None) -> float | None:
    """Seconds of a wait that can be meant: a day at most."""
    return None if retry_after is None or retry_after < 0 else min(retry_after, LONGEST_WAIT)


def readable(text: str) -> str | None:
    """At most 500 printable characters of a provider's text, for the mailbox's owner."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST_SAID])
    return " ".join(printable.split())[:LONGEST_SAID] or None
