"""What has come of requests that were taken on, but not known to be decided before their answer had to be given.

Of a command whose append was not acknowledged nothing may ever be heard. So where nothing is after half a minute, a command
that has lapsed already is appended after it, under an id that derives from its own: once that is decided, all that came
before it has been, and what there is nothing of then never will be.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.callbacks import Callback, ResendCallback
from domain.connection_commands import RevokeConnection
from domain.scopes import allows
from domain.send_commands import CancelSend
from domain.webhooks import EnableWebhook
from gateways.http import problems
from gateways.http.operations import AFTER_PARAMETER, TEXT, declare, json_response, parameter
from gateways.http.positions import LOG_POSITION, after_position, position_text
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1.new_users import TAKEN
from gateways.http.v1.operation_shapes import OPERATION, Operation
from gateways.http.v1.pending import LOOK_AGAIN, PATH, SEND_MAIL, TELL_OF_SEND, Named, named_by
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT
from gateways.http.who import Caller, account_caller
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.webhooks.signing import Signer
from projections import decisions, deliveries, send_lists, webhooks
from projections.decisions import KEPT_DAYS, DecisionRow
from schemas import commands, topics

OPERATION_PARAMETER: Final = parameter("operation_id", "path", "The operation's id.", TEXT, OPERATION)
#: Well after the last moment at which a command could still be taken on, by any clock.
LAPSED_AFTER: Final = timedelta(seconds=30)
#: How long what came of a command can be asked for, and a secret that was shown once with its answer.
KEPT: Final = timedelta(days=KEPT_DAYS - 1)
SECRET_KEPT: Final = timedelta(hours=24)
#: Seconds before what tells of an end is appended once more, and how many of those are remembered.
CLOSED_AGAIN_SECONDS: Final = 60.0
MOST_CLOSING: Final = 10_000
NOT_KEPT: Final = f"What came of a request can be looked at for {KEPT.days} days."
LAPSED: Final = "The request did not reach us in time to take effect, and nothing was changed: ask again."
#: The problem that each refusal would have been. Others are of a moment: asked again it may go well.
REFUSALS: Final[Mapping[str, str]] = {
    "failed": "internal_error",
    **dict.fromkeys(
        ("unknown", "unknown_user", "unknown_attachment", "unknown_endpoint", "user_deleted"), "not_found"
    ),
    "too_many_secrets": "rotated_too_often",
    "too_many_endpoints": "too_many_webhooks",
    "sent": "already_sent",
    **{
        code: code
        for code in (
            "email_taken", "external_id_taken", "idempotency_key_reused", "no_active_connection", "not_ended", "too_late",
            "too_many_connections",
        )
    },
}  # fmt: skip

#: Those of connecting that are no problems: as `error` names them where a browser comes back to.
OF_CONNECTING: Final = frozenset({"another_mailbox", "scopes_missing", "already_connected", "unknown_connection"})
NOT_CONNECTED: Final = "No mailbox was connected; the page on connecting accounts tells what the code means."


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["operations"])
    declare(
        router,
        "GET",
        PATH + "/{operation_id}",
        Operations(services).show,
        name="getOperation",
        summary="Look what has come of a request",
        answers={200: {"model": Operation, "description": "Whether it is decided, and how."}},
        refusals=("invalid_request", "not_found", "gone", "outcome_unknown", *OF_ACCOUNT),
        parameters=(OPERATION_PARAMETER, AFTER_PARAMETER),
        security=API_KEY,
    )
    return router


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it: `subject` is what was made or changed, `position` where the log says so, if it is known."""

    status: str
    subject: str | None = None
    reason: str | None = None
    position: str | None = None


class Operations:
    """The handler."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._closing: OrderedDict[str, float] = OrderedDict()

    async def show(self, request: Request) -> Response:
        """Asked for again until it is not `pending` any more, it tells what an answer in time would have told."""
        services = self._services
        named = named_by(request.path_params["operation_id"])
        caller = await account_caller(services, request, named.kind.scope if named else "sends:read")
        if named is None or not named.is_of(services.keyset, caller.owner):
            raise problems.not_found()
        await after_position(services, request)
        found = await self._found(named, caller)
        said = {"operationId": request.path_params["operation_id"], **await self._told(named, caller, found)}
        headers = dict(NO_STORE if found.status != "pending" else LOOK_AGAIN)
        return json_response(said, 200, headers | ({LOG_POSITION: found.position} if found.position else {}))

    async def _found(self, named: Named, caller: Caller) -> Found:
        """Raises a Problem (410) where it is not kept any more."""
        services, closed = self._services, f"{named.command}.closed"
        # What was decided first: where it is nothing yet, a send that comes in between is seen by the second question.
        rows = await decisions.of_commands(services.pool, named.kind.events, [named.command, closed])
        if named.command in rows:
            return _decided(named, rows[named.command])
        send = await self._send(named, caller) if named.kind is SEND_MAIL else None
        if send is not None:
            return send
        if closed in rows:
            return Found("lapsed")
        age = datetime.now(UTC) - named.asked_at
        if age > KEPT:
            raise Problem("gone", NOT_KEPT)
        if age > LAPSED_AFTER:
            await self._close(named, caller, closed)
        return Found("pending")

    async def _send(self, named: Named, caller: Caller) -> Found | None:
        """The mail that was asked for, where it has its id of the command."""
        pool, send = self._services.pool, decisions.send_of(named.command)
        row = await send_lists.by_id(pool, caller.owner, send)
        if row is not None:
            return Found("done", send, position=position_text(named.kind.events, row.partition, row.position + 1))
        return Found("refused", reason="user_deleted") if await send_lists.is_hidden(pool, caller.owner, send) else None

    async def _close(self, named: Named, caller: Caller, command_id: str) -> None:
        """What is decided on this tells that nothing will come of the other; where it can't be appended now, the next may.

        While nobody decides, those who ask again and again have it appended once a minute.
        """
        now = asyncio.get_running_loop().time()
        if self._closing.get(command_id, 0) > now:
            return
        self._closing[command_id] = now + CLOSED_AGAIN_SECONDS
        self._closing.move_to_end(command_id)
        while len(self._closing) > MOST_CLOSING:
            self._closing.popitem(last=False)
        topic, vocabulary, command = _closing(named, caller)
        with suppress(NotPromised, OutcomeUnknown):  # too late, as it should be; or not now
            await self._services.command_log.command(
                topic,
                named.key,
                command,
                vocabulary=vocabulary,
                subject=named.command,
                command_id=command_id,
                not_after=named.asked_at,
            )

    async def _told(self, named: Named, caller: Caller, found: Found) -> dict[str, Any]:
        """The members of the answer that tell what came of it."""
        done, code = found.status == "done", None
        detail = LAPSED if found.status == "lapsed" else None
        if found.status == "refused":
            code, detail = _refusal(found.reason or "")
        return {
            "status": found.status,
            "messageId": found.subject if done and named.kind.of_send else None,
            "location": await self._location(named, found),
            "code": code,
            "detail": detail,
            "secret": await self._secret(named, caller, found) if done else None,
        }

    async def _location(self, named: Named, found: Found) -> str | None:
        if found.subject is None:
            return None
        if named.kind is TELL_OF_SEND:
            message = await deliveries.message_of(self._services.pool, found.subject)
            return f"/v1/messages/{message}/deliveries" if message else None
        return named.kind.place and named.kind.place.format(subject=found.subject, key=named.key)

    async def _secret(self, named: Named, caller: Caller, found: Found) -> str | None:
        """What the answer would have shown this once, for as long as an idempotency key is sure to stand for it."""
        services = self._services
        if not named.kind.secret or found.subject is None or datetime.now(UTC) - named.asked_at > SECRET_KEPT:
            return None
        if caller.holder is None or not allows(caller.holder.scopes, "webhooks:write"):
            return None
        row = await webhooks.by_id(services.pool, caller.owner, found.subject)
        return Signer.of(services.keyset, row.endpoint, row.key_version).secret if row is not None else None


def _decided(named: Named, row: DecisionRow) -> Found:
    position = position_text(named.kind.events, row.partition, row.position + 1)
    if row.reason is None or row.reason in named.kind.as_wished:
        return Found("done", row.subject, position=position)
    if row.reason == "repeated" and row.instead is not None:
        return Found("done", row.instead, position=position)
    if row.reason == "lapsed":
        return Found("lapsed", position=position)
    return Found("refused", row.instead, row.reason, position)


def _refusal(reason: str) -> tuple[str, str]:
    """Code and sentence."""
    if reason in OF_CONNECTING:
        return reason, NOT_CONNECTED
    code = REFUSALS.get(reason, "unavailable")
    return code, TAKEN.get(code, problems.KINDS[code].meaning)


def _closing(named: Named, caller: Caller) -> tuple[str, Any, Any]:
    """Topic, vocabulary and a command about nothing there is."""
    account, nothing = caller.owner, named.command
    match named.kind.events:
        case topics.ACCOUNT_EVENTS.name:
            return topics.ACCOUNT_COMMANDS.name, commands.ACCOUNT, EnableWebhook(account, nothing, caller.by)
        case topics.CONNECTION_EVENTS.name:
            return topics.CONNECTION_COMMANDS.name, commands.CONNECTION, RevokeConnection(nothing, named.key, "caller")
        case topics.SEND_EVENTS.name:
            return topics.SEND_COMMANDS.name, commands.SEND, CancelSend(nothing, named.key, account)
        case _:
            told = Callback(nothing, account, None, "", "")
            return topics.WEBHOOK_COMMANDS.name, commands.WEBHOOK, ResendCallback(told, caller.by)
