"""Asking for a change: from a request to the decision on its command."""

from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from starlette.requests import Request

from domain.mailbox_events import CommandRefused
from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from gateways.http import problems
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.tracing import trace_of
from gateways.log.command_log import OutcomeUnknown
from gateways.log.decisions import Asked, Decision, Decisions
from gateways.stores.postgres import UNREACHABLE
from schemas import topics

Read = TypeVar("Read")
#: Where a request's scope has what it asked last: whoever can't be told in time is told where to look for it.
ASKED: Final = "asked"


async def ask(
    services: Services, request: Request, command: Any, *, owner: str, mailbox: str, projection: str
) -> Decision:
    """The decision, folded by that projection. Raises a Problem where it is a refusal, and what Decisions.ask raises."""
    asked = Asked(topics.MAILBOX_COMMANDS.name, key=owner, subject=mailbox, command=command, projection=projection)
    decision = await settled(services.decisions, request, asked)
    match decision.event:
        case CommandRefused(reason="ended"):
            raise problems.mailbox_ended()
        case CommandRefused(reason="unknown" | "not_the_owner"):
            raise problems.not_found()
    return decision


async def settled(decisions: Decisions, request: Request, asked: Asked) -> Decision:
    """The decision on a command of any context, whatever it is. Raises a Problem where there is none, and what
    Decisions.ask raises."""
    request.scope[ASKED] = asked
    decision = await decisions.ask(asked, trace=trace_of(request))
    match decision.event:
        case CommandLapsed():
            raise problems.unavailable()
        case CommandFailed() | CommandUnreadable():
            raise Problem("internal_error", "A fault of ours kept this from being decided; nothing was changed.")
    return decision


async def read_back(reading: Awaitable[Read]) -> Read:
    """What is read of a change that has been decided: where it can't be read now, nobody may say that nothing happened.

    Raises OutcomeUnknown, and whatever else the reading raises.
    """
    try:
        return await reading
    except UNREACHABLE as error:
        raise OutcomeUnknown("decided, and not to be read now") from error
