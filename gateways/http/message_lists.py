"""Listing a mailbox's messages: what is asked most often, and the only route that is built for speed.

One query finds the mailbox, its key and the position that its messages have been folded up to; while that has not moved, the
page is the one that was sent last. A list is consistent with its position: a stream that goes on from there shows each
message once.
"""

import re
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import parameters, problems
from gateways.http.edge import Shortcut
from gateways.http.operations import list_response, strong_etag
from gateways.http.pages import Line, Page
from gateways.http.parameters import timestamp
from gateways.http.positions import LOG_POSITION, after_position, position_text
from gateways.http.services import Services
from gateways.http.who import address_digest, allowed, caller_of
from gateways.stores.sealing import Unsealable, place, unseal
from projections import mailboxes, messages
from projections.messages import Listed
from schemas.topics import MAILBOX_EVENTS

DEFAULT_LIMIT: Final = 50
#: A larger limit is capped silently.
LARGEST_LIMIT: Final = 1000


PATH: Final = "/api/v1/mailboxes/{address}/messages"
PATTERN: Final = re.compile("/api/v1/mailboxes/(?P<address>[^/]+)/messages")


def shortcut(services: Services) -> Shortcut:
    return Shortcut("GET", PATH, PATTERN, MessageLists(services).newest)


class MessageLists:
    """The handler; raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def newest(self, request: Request) -> Response:
        """Newest first. `X-Log-Position` is where a stream of this mailbox goes on from what is listed here."""
        services = self._services
        caller = await caller_of(services, request, "mailboxes:read")
        limit, offset = parameters.window(request, usual=DEFAULT_LIMIT, most=LARGEST_LIMIT)
        await after_position(services, request)
        found = await mailboxes.readable(services.pool, address_digest(services, request.path_params["address"]))
        row = allowed(caller, found.row if found else None)
        if found is None or found.kid is None or found.wrapped is None:
            raise problems.mailbox_ended()
        page = services.pages.page((row.mailbox, limit, offset), found.position)
        if page is None:
            data_key = await services.keyring.unwrap(row.mailbox, found.kid, found.wrapped)
            listed = await messages.newest(
                services.pool, row.mailbox, before=found.position, limit=limit, offset=offset
            )
            page = self._page(listed, data_key, found.position)
            services.pages.keep((row.mailbox, limit, offset), page)
        position = position_text(MAILBOX_EVENTS.name, row.partition, page.position)
        return list_response(request, page.body, page.etag, {LOG_POSITION: position})

    def _page(self, listed: list[Listed], data_key: bytes, position: int) -> Page:
        parts = []
        for message in listed:
            line = self._services.pages.line(message.message)
            if line is None:
                line = _line(message, data_key)
                self._services.pages.keep_line(message.message, line)
            parts.append(line[0] + (b"true" if message.is_read else b"false") + line[1])
        body = b"[" + b",".join(parts) + b"]"
        return Page(position, body, strong_etag(body))


def _line(message: Listed, data_key: bytes) -> Line:
    """A message's JSON around the word that may change."""
    try:
        if message.summary is not None:
            summary = orjson.loads(unseal(data_key, message.summary, place("message", message.message, "summary")))
        else:
            summary = {}
        sender = summary.get("from_address")
        if not sender:
            envelope = orjson.loads(unseal(data_key, message.envelope, place("message", message.message, "envelope")))
            sender = envelope["sender"] or None
    except Unsealable as error:
        raise problems.mailbox_ended() from error
    before = {
        "id": message.message,
        "from_address": sender,
        "subject": summary.get("subject"),
        "received_at": timestamp(message.received_at),
    }
    has_attachments = b"true" if message.has_attachments else b"false"
    return orjson.dumps(before)[:-1] + b',"is_read":', b',"has_attachments":' + has_attachments + b"}"
