"""Asking for a mail to be sent: what is known of its user in one query, then the mail, sealed, then the command.

An idempotency key is looked up before anything that time changes: a repetition is answered as the first was, whatever has
become of the connection, the schedule or the attachments since. Whether there is a connection is for the decision to tell,
which knows of keys that the tables don't have yet. Where no send came of the request for certain, a blob is destroyed again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

import orjson
from starlette.requests import Request

from domain.fields import Digest, Sealed
from domain.mail_wire_fields import Unwritable
from domain.send_choice import choose
from domain.send_commands import RequestSend
from domain.send_events import SendRefused, SendRepeated, SendRequested
from gateways.http import problems
from gateways.http.asking import read_back, settled
from gateways.http.parameters import USER_ID
from gateways.http.positions import position_text
from gateways.http.problems import Fault, Problem
from gateways.http.rate_headers import refused_by
from gateways.http.services import Services
from gateways.http.v1.send_bodies import Wanted, read_send, when
from gateways.http.v1.send_sizes import MOST_ENCODED, size_of
from gateways.http.who import Caller
from gateways.log.command_log import NotPromised
from gateways.log.decisions import SETTLE_SECONDS, Asked, Decision
from gateways.single_flight import SingleFlight
from gateways.stores import send_keys
from gateways.stores.sealing import Unsealable, place, seal, unseal
from projections import attachments, send_grounds, send_lists, sends
from projections.send_grounds import Grounds, Taken
from schemas import topics
from schemas.ids import new_id
from schemas.send_message import BLOB_FIELD, MOST_IN_EVENT, File, SendMessage

log = logging.getLogger(__name__)

ROUTE: Final = "POST /v1/messages/send"
#: Characters of a body beyond which its plain text is made beside everything else: it may take a good part of a second.
LONG_BODY: Final = 65_536
#: Seconds that a repetition waits for the one before it.
TURN_SECONDS: Final = SETTLE_SECONDS


@dataclass(frozen=True, slots=True)
class Made:
    """The send there is now; `replayed` where an idempotency key stood for it already."""

    send: str
    scheduled: bool
    log_position: str
    replayed: bool = False


async def make_send(services: Services, request: Request, caller: Caller, turns: SingleFlight) -> Made:
    """Asks for what the request's body says. Raises a Problem, and what Decisions.ask raises.

    Of those that are asked under one key at once, one goes on and the others see what it left behind.
    """
    wanted = await read_send(request, services.egress)
    digest = services.keyset.digest
    if wanted.key is None:
        return await _make(services, request, caller.owner, wanted, None)
    key = digest("idempotency", caller.owner, wanted.user, ROUTE, wanted.key)
    async with _turn(turns(key)):
        return await _make(services, request, caller.owner, wanted, key)


@asynccontextmanager
async def _turn(lock: asyncio.Lock) -> AsyncIterator[None]:
    """Alone, or after a while not: where nothing is decided every caller is told so in time."""
    async with AsyncExitStack() as stack:
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                await stack.enter_async_context(lock)
        yield


async def _make(services: Services, request: Request, account: str, wanted: Wanted, key: Digest | None) -> Made:
    user = wanted.user
    body = services.keyset.digest("idempotency", "request", account, ROUTE, wanted.said)
    known = await send_grounds.grounds(services.pool, account, user, key) if USER_ID.fullmatch(user) else None
    if known is None:
        raise problems.no_such_user()
    if known.taken is not None:
        return _made_before(known.taken, body)
    scheduled_at = when(wanted.scheduled_at, datetime.now(UTC))
    data_key = (await services.keyring.get([user])).get(user)
    if data_key is None:
        raise problems.no_such_user()
    own = new_id("snd")
    message = await _message(services, account, wanted, known, data_key)
    size = _size(message, own, _message_id(services, own), _most(known, wanted))
    send = known.named
    if send is None:  # else the one who asked first has paid for it
        await _permit(services, request, user)
        send = await _named(services, key, own) if key else own
    sealed, blob = await _sealed(services, f"{user}/{own}.{BLOB_FIELD}", send, message, data_key)
    command = RequestSend(
        send=send,
        user=user,
        owner=account,
        message_id=_message_id(services, send),
        body=body,
        recipients=len(wanted.recipients),
        attachments=wanted.attachments,
        size=size,
        connections=known.connections,
        message=sealed,
        blob=blob,
        key=key,
        scheduled_at=scheduled_at,
        connection=wanted.connection,
        preference=wanted.preference,
        callback=seal(data_key, wanted.callback.encode(), place("send", send, "callback")) if wanted.callback else None,
        scale=services.retry_scale,
    )
    return await _decided(services, request, command, f"cmd_{own.removeprefix('snd_')}")


async def _named(services: Services, key: Digest, send: str) -> str:
    return await send_keys.named(services.pool, key, send, seconds=send_grounds.NAMED_SECONDS)


def _message_id(services: Services, send: str) -> str:
    return f"<{send}@{services.mail_domain}>"


async def _decided(services: Services, request: Request, command: RequestSend, command_id: str) -> Made:
    # Whoever is not told in time asks for the command: its id and the mail's are one, unless the key named another mail.
    asked = Asked(topics.SEND_COMMANDS.name, command.user, command.send, command, sends.PROJECTION.name, command_id)
    try:
        decision = await settled(services.send_decisions, request, asked)
    except (NotPromised, Problem):
        await _forget(services, command.blob)
        raise
    if isinstance(decision.event, SendRequested):
        return Made(command.send, command.scheduled_at is not None, decision.log_position)
    await _forget(services, command.blob)
    return await _otherwise(services, command, decision)


async def _otherwise(services: Services, command: RequestSend, decision: Decision) -> Made:
    """The send that the idempotency key stands for. Raises a Problem where there is none."""
    match decision.event:
        case SendRepeated(of=earlier):
            row = await read_back(send_lists.by_id(services.pool, command.owner, earlier))
            if row is None:
                raise problems.not_found()
            return Made(earlier, row.scheduled_at is not None, _place(row.partition, row.position), replayed=True)
        case SendRefused(reason="idempotency_key_reused"):
            raise _reused()
        case SendRefused(reason="no_active_connection"):
            raise _no_connection(command.connection)
        case SendRefused(reason="user_deleted"):
            raise problems.no_such_user()
        case _:
            raise problems.unavailable()


def _made_before(taken: Taken, body: Digest) -> Made:
    if taken.body != body:
        raise _reused()
    return Made(taken.send, taken.scheduled_at is not None, _place(taken.partition, taken.position), replayed=True)


def _place(partition: int, position: int) -> str:
    return position_text(topics.SEND_EVENTS.name, partition, position + 1)


def _reused() -> Problem:
    return Problem("idempotency_key_reused", "This idempotency key already stands for another mail.")


def _no_connection(named: str | None) -> Problem:
    if named is None:
        return Problem(
            "no_active_connection",
            "The user has no active connection: have them connect a mailbox, or connect it again.",
        )
    said = "`connectionId` names no connection of this user that is live."
    return Problem("no_active_connection", said, errors=[Fault("/connectionId", said)])


async def _message(services: Services, account: str, wanted: Wanted, known: Grounds, data_key: bytes) -> SendMessage:
    """What is to be sealed. Raises a Problem (400) for attachments that are not there, or not this user's."""
    people = wanted.recipients
    return SendMessage(
        subject=wanted.subject,
        body=wanted.body,
        bodyFormat=wanted.format,
        text=await _text(wanted),
        to=people.to,
        cc=people.cc,
        bcc=people.bcc,
        replyTo=wanted.reply_to,
        headers=wanted.headers,
        threadId=wanted.thread_id,
        fromName=_name(known.display_name, wanted.user, data_key),
        attachments=await _files(services, account, wanted, data_key) if wanted.attachments else [],
    )


async def _text(wanted: Wanted) -> str:
    return wanted.alternative() if len(wanted.body) <= LONG_BODY else await asyncio.to_thread(wanted.alternative)


def _name(display_name: Sealed | None, user: str, data_key: bytes) -> str:
    """Raises a Problem (404) where the user was erased a moment ago."""
    if display_name is None:
        return ""
    try:
        return unseal(data_key, display_name, place("user", user, "displayName")).decode()
    except Unsealable as error:
        raise problems.no_such_user() from error


async def _files(services: Services, account: str, wanted: Wanted, data_key: bytes) -> list[File]:
    rows = await attachments.of_user(services.pool, account, wanted.user, wanted.attachments)
    found = {row.attachment: row for row in rows}
    missing = [number for number, name in enumerate(wanted.attachments) if name not in found]
    if missing:
        said = "The user has no such attachment: it was never there, was deleted, or has expired."
        raise problems.invalid_all([Fault(f"/attachments/{number}", said) for number in missing])
    return [
        File(
            row.attachment,
            unseal(data_key, row.name, place("attachment", row.attachment, "name")).decode(),
            row.mime,
            row.size,
            row.blob,
        )
        for row in rows
    ]


def _most(known: Grounds, wanted: Wanted) -> int | None:
    """Bytes that the provider takes which the mail will be given to first; None where there is none."""
    chosen = choose(known.connections, named=wanted.connection, preference=wanted.preference)
    return MOST_ENCODED[chosen.provider] if chosen is not None else None


def _size(message: SendMessage, send: str, message_id: str, most: int | None) -> int:
    """Raises a Problem: 413, or 400 for what can't be written as a mail."""
    try:
        size = size_of(message, send, message_id, message.attachments)
    except Unwritable as error:
        raise problems.invalid(f"/{error.where}", "This can't be written into a mail.") from error
    if most is not None and size > most:
        said = f"The mail would have {size:,} bytes once it is encoded, and its provider takes {most:,}: send links instead."
        raise Problem("message_too_large", said, more={"most": most, "size": size})
    return size


async def _permit(services: Services, request: Request, user: str) -> None:
    """Takes one of the user's sends. Raises a Problem (429)."""
    if not services.rates_on:
        return
    standing = await services.rates.spend(services.send_limit, user)
    request.scope["rate"] = standing
    if standing.refused:
        raise refused_by(standing)


async def _sealed(
    services: Services, blob: str, send: str, message: SendMessage, data_key: bytes
) -> tuple[Sealed | None, str | None]:
    """The mail for the command, or the `blob` that holds it, which is durable then. Raises a Problem (503).

    Nobody else may write a blob of this name: it is destroyed again where nothing comes of it.
    """
    plain, at = orjson.dumps(message), place("send", send, BLOB_FIELD)
    if len(plain) <= MOST_IN_EVENT:
        return seal(data_key, plain, at), None
    try:
        await services.blobs.put(blob, BytesIO(plain), data_key, at)
    except OSError as error:
        log.warning("a mail could not be stored", extra={"cause": repr(error)})
        raise problems.unavailable(
            "The mail can't be stored now, and nothing was changed; try again shortly."
        ) from error
    return None, blob


async def _forget(services: Services, blob: str | None) -> None:
    """No event will ever name it."""
    if blob is None:
        return
    try:
        await services.blobs.destroy(blob)
    except OSError as error:
        log.warning("a blob is left behind", extra={"cause": repr(error)})
