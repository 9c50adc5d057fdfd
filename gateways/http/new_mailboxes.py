"""Opening a mailbox: its data key first, then the command, then the answer that it receives from now on.

The data key must be there before the first event that is sealed under it. Where no mailbox came of the request for certain,
the key is destroyed again; where the outcome is unknown it stays.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from starlette.requests import Request

from domain.fields import Digest
from domain.mailbox_commands import CreateMailbox
from domain.mailbox_events import MailboxCreated, MailboxRefused
from domain.plans import LONGEST_LIFETIME_MINUTES, Plan
from gateways.http import parameters, problems
from gateways.http.asking import ask
from gateways.http.json_bodies import json_object
from gateways.http.new_addresses import new_address
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.who import Caller
from gateways.log.command_log import NotPromised
from gateways.log.decisions import Decision
from gateways.stores.sealing import Unsealable, place, seal, unseal
from projections import mailboxes
from projections.mailboxes import MailboxRow

ROUTE: Final = "POST /api/v1/mailboxes"


@dataclass(frozen=True, slots=True)
class Opened:
    """What the answer to a creation says; `replayed` where an idempotency key stood for it already."""

    address: str
    expires_at: datetime
    session_token: str
    log_position: str
    replayed: bool = False


async def open_mailbox(services: Services, request: Request, caller: Caller | None) -> Opened:
    """Makes a mailbox for the caller, None being anonymous. Raises a Problem, and what Decisions.ask raises."""
    command, address = await _command(services, request, caller)
    try:
        decision = await ask(
            services,
            request,
            command,
            owner=command.owner,
            mailbox=command.mailbox,
            projection=mailboxes.PROJECTION.name,
        )
    except (NotPromised, Problem):
        await services.keyring.destroy(command.mailbox)
        raise
    if isinstance(decision.event, MailboxCreated):
        token = services.keyset.mailbox_token(command.mailbox, decision.event.token_version)
        return Opened(address, decision.event.expires_at, token, decision.log_position)
    await services.keyring.destroy(command.mailbox)
    return await _refused(services, decision)


async def _command(services: Services, request: Request, caller: Caller | None) -> tuple[CreateMailbox, str]:
    """The command and the address it is for; the mailbox's data key is taken on the way."""
    minutes = parameters.whole_number(request, "ttl_minutes", least=1)
    await json_object(request)
    key = parameters.idempotency_key(request) if caller else None
    plan = await _plan(services, caller)
    mailbox, data_key = await services.key_stock.take()
    owner, address = caller.owner if caller else mailbox, new_address(services.mail_domain)
    command = CreateMailbox(
        mailbox=mailbox,
        owner=owner,
        address_digest=services.keyset.digest("address", address),
        address=seal(data_key, address.encode(), place("mailbox", mailbox, "address")),
        plan=plan,
        ttl_minutes=None if minutes is None else min(minutes, LONGEST_LIFETIME_MINUTES),
        idempotency_key=services.keyset.digest("idempotency", owner, ROUTE, key) if key else None,
        request=await _request_digest(services, request, owner) if key else None,
    )
    return command, address


async def _plan(services: Services, caller: Caller | None) -> Plan:
    if caller is not None and caller.holder is not None:
        return caller.holder.plan
    return await services.anonymous_plan.now(services.pool, services.folded.positions)


async def _request_digest(services: Services, request: Request, owner: str) -> Digest:
    """What makes a repetition the same request: its query, in any order, and its body."""
    said = sorted(request.query_params.multi_items())
    body = sha256(await request.body()).hexdigest()
    return services.keyset.digest("idempotency", "request", owner, ROUTE, repr(said), body)


async def _refused(services: Services, decision: Decision) -> Opened:
    event = decision.event
    match event:
        case MailboxRefused(reason="plan_limit_mailboxes"):
            detail = f"The plan allows {event.limit} live mailboxes, and {event.used} are live."
            raise Problem("plan_limit_mailboxes", detail, more={"limit": event.limit, "used": event.used})
        case MailboxRefused(reason="idempotency_key_reused"):
            raise Problem("idempotency_key_reused", "This idempotency key already stands for another request.")
        case MailboxRefused(reason="repeated", of=str(earlier)):
            return await _replayed(services, earlier, decision.log_position)
        case _:
            raise problems.unavailable()


async def _replayed(services: Services, mailbox: str, log_position: str) -> Opened:
    row = await mailboxes.by_id(services.pool, mailbox)
    if row is None:
        raise problems.outcome_unknown()
    address = await address_of(services, row)
    token = services.keyset.mailbox_token(mailbox, row.token_version)
    return Opened(address, row.expires_at, token, log_position, replayed=True)


async def address_of(services: Services, row: MailboxRow) -> str:
    """A mailbox's address, opened. Raises a Problem (410) where its data key is gone."""
    return (await addresses_of(services, [row]))[0]


async def addresses_of(services: Services, rows: list[MailboxRow]) -> list[str]:
    """The addresses of mailboxes, opened. Raises a Problem (410) where a data key is gone."""
    keys = await services.keyring.get(row.mailbox for row in rows)
    try:
        return [
            unseal(keys[row.mailbox], row.address, place("mailbox", row.mailbox, "address")).decode() for row in rows
        ]
    except (KeyError, Unsealable) as error:
        raise problems.mailbox_ended() from error
