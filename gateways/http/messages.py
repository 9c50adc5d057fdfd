"""The messages of an inbox: reading one, its raw form, its attachments, and deleting it."""

import asyncio
import logging
from functools import partial
from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain import mail
from domain.mailbox_commands import DeleteMessage, ReadMessage
from domain.scopes import KeyScope
from gateways.http import message_lists, operations, problems
from gateways.http.asking import ask
from gateways.http.downloads import download
from gateways.http.mailboxes import OF_MAILBOX, PREFIX
from gateways.http.message_lists import DEFAULT_LIMIT, LARGEST_LIMIT, MessageLists
from gateways.http.operations import (
    ADDRESS_PARAMETER,
    AFTER_PARAMETER,
    MESSAGE_PARAMETER,
    SAME,
    declare,
    json_response,
)
from gateways.http.parameters import message_id, timestamp
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.shapes import ListedMessage, Message
from gateways.http.tracing import trace_of
from gateways.http.who import Caller, caller_of, mailbox_for
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.log.decisions import Asked, Unsettled
from gateways.stores.sealing import Unsealable, place, unseal
from projections import messages
from projections.mailboxes import MailboxRow
from projections.messages import Whole
from schemas import topics

log = logging.getLogger(__name__)

ONE: Final = PREFIX + "/{address}/messages/{message_id}"
#: Seconds that showing a message waits until lists show it as read.
READ_SECONDS: Final = 1.0
UNPARSED: Final[dict[str, Any]] = {
    "to": [],
    "cc": [],
    "reply_to": [],
    "subject": None,
    "body_text": None,
    "body_html": None,
    "headers": {},
    "attachments": [],
}
BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
PARTIAL: Final = {"description": "The range that was asked for."}
REFUSALS: Final = ("invalid_request", *OF_MAILBOX)
ONE_PARAMETERS: Final = (ADDRESS_PARAMETER, MESSAGE_PARAMETER)
INDEX_PARAMETER: Final = operations.parameter(
    "index", "path", "The attachment's `index`.", {"type": "integer", "minimum": 0}, 0
)


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["messages"])
    found = Messages(services)
    declare(
        router,
        "GET",
        message_lists.PATH,
        MessageLists(services).newest,
        name="listMessages",
        summary="List an inbox's messages",
        answers={200: {"model": list[ListedMessage], "description": "Newest first."}, 304: SAME},
        refusals=REFUSALS,
        parameters=(
            ADDRESS_PARAMETER,
            *operations.window_parameters(DEFAULT_LIMIT, LARGEST_LIMIT),
            AFTER_PARAMETER,
        ),
    )
    declare(
        router,
        "GET",
        ONE,
        found.read,
        name="getMessage",
        summary="Read a message",
        answers={200: {"model": Message, "description": "The whole message; it counts as read now."}},
        refusals=REFUSALS,
        parameters=(*ONE_PARAMETERS, AFTER_PARAMETER),
    )
    declare(
        router,
        "DELETE",
        ONE,
        found.delete,
        name="deleteMessage",
        summary="Delete a message",
        answers={204: {"description": "It is gone."}},
        refusals=("outcome_unknown", *OF_MAILBOX),
        parameters=ONE_PARAMETERS,
    )
    _declare_downloads(router, found)
    return router


def _declare_downloads(router: APIRouter, found: "Messages") -> None:
    """What of a message is handed out as files."""
    declare(
        router,
        "GET",
        ONE + "/raw",
        found.raw,
        name="getRawMessage",
        summary="Download a message as it came",
        answers={
            200: {"description": "The mail (RFC 5322).", "content": {"message/rfc822": BINARY}},
            206: PARTIAL,
            304: SAME,
        },
        refusals=("range_not_satisfiable", *REFUSALS),
        parameters=ONE_PARAMETERS,
    )
    declare(
        router,
        "GET",
        ONE + "/attachments/{index}",
        found.attachment,
        name="getAttachment",
        summary="Download an attachment",
        answers={
            200: {"description": "Its decoded bytes.", "content": {"application/octet-stream": BINARY}},
            206: PARTIAL,
            304: SAME,
        },
        refusals=("range_not_satisfiable", *REFUSALS),
        parameters=(*ONE_PARAMETERS, INDEX_PARAMETER),
    )


class Messages:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._marking: set[asyncio.Task[str | None]] = set()

    async def read(self, request: Request) -> Response:
        """The whole message, which counts as read from now on. One that could not be parsed shows its envelope."""
        _, mailbox, row = await self._find(request)
        keys = await self._services.keyring.get([row.mailbox])
        try:
            at = place("message", row.message, "envelope")
            envelope = orjson.loads(unseal(keys[row.mailbox], row.envelope, at))
        except (KeyError, Unsealable) as error:
            raise problems.mailbox_ended() from error
        content = await self._content(row)
        headers = {"Cache-Control": "private, no-store"}
        if not row.is_read and not request.scope.get("head"):
            position = await self._mark_read(request, mailbox, row)
            if position is not None:
                headers[LOG_POSITION] = position
        said = {
            "id": row.message,
            "from_address": content.get("from_address") or envelope["sender"] or None,
            "from_name": content.get("from_name"),
            "to_address": envelope["recipient"],
            "received_at": timestamp(row.received_at),
            "is_read": True,
            "state": row.state,
            **{name: content.get(name, missing) for name, missing in UNPARSED.items()},
        }
        return json_response(said, headers=headers)

    async def delete(self, request: Request) -> Response:
        """Nobody sees it again."""
        caller, mailbox, row = await self._find(request, "mailboxes:write")
        decision = await ask(
            self._services,
            request,
            DeleteMessage(row.mailbox, row.message, caller.by),
            owner=mailbox.owner,
            mailbox=row.mailbox,
            projection=messages.PROJECTION.name,
        )
        return Response(status_code=204, headers={LOG_POSITION: decision.log_position})

    async def raw(self, request: Request) -> Response:
        """Every byte as it was received; ranges are answered."""
        _, _, row = await self._find(request)
        return download(
            request,
            partial(self._raw, row),
            held=row.size,
            name=f"{row.message}.eml",
            media_type="message/rfc822",
            etag=f'"{row.sha256}"',
        )

    async def attachment(self, request: Request) -> Response:
        """Always a download, under a safe name; ranges are answered."""
        _, _, row = await self._find(request)
        told = _attachment(await self._content(row), request.path_params["index"])

        async def read() -> bytes:
            # The same mail was read within our limits when it came in.
            return await asyncio.to_thread(mail.attachment_bytes, await self._raw(row), told["index"])

        return download(
            request,
            read,
            held=row.size + told["size"],
            name=told["filename"],
            media_type=told["content_type"],
            etag=f'"{told["sha256"]}"',
        )

    async def _find(self, request: Request, scope: KeyScope = "mailboxes:read") -> tuple[Caller, MailboxRow, Whole]:
        services = self._services
        caller = await caller_of(services, request, scope)
        await after_position(services, request)
        mailbox = await mailbox_for(services, caller, request.path_params["address"])
        row = await messages.whole(services.pool, mailbox.mailbox, message_id(request))
        if row is None:
            raise problems.not_found()
        return caller, mailbox, row

    async def _raw(self, row: Whole) -> bytes:
        try:
            return await self._services.mail.raw(row)
        except LookupError as error:
            raise Problem("gone", "This mail is no longer kept as it came.") from error

    async def _content(self, row: Whole) -> dict[str, Any]:
        content = await self._services.mail.content(row)
        return {} if content is None else dict(orjson.loads(content))

    async def _mark_read(self, request: Request, mailbox: MailboxRow, row: Whole) -> str | None:
        """Has it marked, and the position from which on it is; None where log or tables don't say so in time: then the
        message is shown all the same, and marked a little later."""
        task = asyncio.create_task(self._ask_to_mark(trace_of(request), mailbox, row))
        self._marking.add(task)
        task.add_done_callback(self._marking.discard)
        done, _ = await asyncio.wait([task], timeout=READ_SECONDS)
        return task.result() if done else None

    async def _ask_to_mark(self, trace: dict[str, str], mailbox: MailboxRow, row: Whole) -> str | None:
        """The decision's position, a refusal's too: somebody has read it already, or it is gone. Raises nothing, since
        nobody may be there any more to hear it."""
        asked = Asked(
            topics.MAILBOX_COMMANDS.name,
            key=mailbox.owner,
            subject=row.mailbox,
            command=ReadMessage(row.mailbox, row.message),
            projection=messages.PROJECTION.name,
        )
        try:
            return (await self._services.decisions.ask(asked, trace=trace)).log_position
        except (NotPromised, OutcomeUnknown, Unsettled) as error:
            log.warning("a message was shown and is not known to be marked", extra={"cause": repr(error)})
        except Exception:
            log.exception("a message was shown and not marked, by a fault of ours")
        return None


def _attachment(content: dict[str, Any], index: str) -> dict[str, Any]:
    """What is known of the attachment of this number; raises a Problem (404)."""
    attachments: list[dict[str, Any]] = content.get("attachments", [])
    if not (index.isascii() and index.isdigit() and len(index) < 6 and int(index) < len(attachments)):
        raise problems.not_found()
    return attachments[int(index)]
