"""Follows sends: puts what was dispatched, deferred or is in doubt where it is worked off, keeps what nobody tries any more
among the dead letters, and has the attachments kept that a send names.

All of it can be done twice: the decider grants one attempt however often it is asked, and a dead letter has the id of its
event. What gets lost on the way is dispatched again by a timer.
"""

from typing import Any, Final, Protocol

from domain.attachments import UseAttachment
from domain.send_events import AttemptDeferred, AttemptInDoubt, SendDeadLettered, SendDispatched, SendRequested
from handlers.command_log import AppendsCommands
from handlers.effector import Effect
from handlers.tiers import Waits, trace_of
from handlers.turns import Turns
from schemas import commands, events, topics
from schemas.envelope import Record
from schemas.work import DeliverSend, LookForSend

NAME: Final = "dispatch"


class KeepsDeadLetters(Protocol):
    async def keep(self, record: Record, *, cause: str) -> str: ...


class Dispatching:
    """What the effect needs: a queue of work, a place for dead letters, a way to tell of attachments, and turns."""

    def __init__(self, waits: Waits, letters: KeepsDeadLetters, log: AppendsCommands, turns: Turns) -> None:
        self._turns = turns
        self._waits = waits
        self._letters = letters
        self._log = log

    async def act(self, event: Any, record: Record) -> None:
        match event:
            case SendDispatched():
                work = DeliverSend(event.send, event.user, event.connection, event.provider, event.mailbox)
                await self._waits.put(work, trace_of(record))
            case AttemptDeferred() if event.overdue_at > event.next_at:  # a longer wait is a timer's alone
                work = DeliverSend(
                    event.send, event.user, event.connection, event.provider, event.mailbox, event.next_at
                )
                await self._waits.put(work, trace_of(record))
            case AttemptInDoubt() if event.provider != "smtp":  # which can't be asked
                await self._waits.put(_first_look(event), trace_of(record))
            case SendDeadLettered():
                await self._letters.keep(record, cause=event.code)
            case SendRequested():
                self._turns.asked()
                await self._keep_attachments(event, record)

    async def _keep_attachments(self, event: SendRequested, record: Record) -> None:
        for attachment in event.attachments:
            await self._log.command(
                topics.ACCOUNT_COMMANDS.name,
                event.owner,
                UseAttachment(event.owner, event.user, attachment, event.send),
                vocabulary=commands.ACCOUNT,
                subject=attachment,
                command_id=f"{event.send}/{attachment}",
                trace=trace_of(record),
            )


def _first_look(event: AttemptInDoubt) -> LookForSend:
    return LookForSend(
        event.send,
        event.user,
        event.connection,
        event.provider,
        event.mailbox,
        attempt=event.attempt,
        message_id=event.message_id,
        number=0,
        first=event.look_at,
        due=event.look_at,
        draft=event.draft,
        draft_message=event.draft_message,
    )


def effect(dispatching: Dispatching) -> Effect:
    """Acts on whatever asks for work on a send."""
    wants = (SendRequested, SendDispatched, AttemptDeferred, AttemptInDoubt, SendDeadLettered)
    return Effect(NAME, topics.SEND_EVENTS.name, events.SEND, wants, dispatching.act, concurrency=64, width=16)
