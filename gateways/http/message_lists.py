"""Listing a mailbox's messages: what is asked most often, and the only route that is built for speed.

One query finds the mailbox, its key and the position that its messages have been folded up to; while that has not moved, the
page is the one that was sent last. A list is consistent with its position: a stream that goes on from there shows each
message once.
"""

import re
from hashlib import blake2b
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import parameters, problems
from gateways.http.conditional import not_modified
from gateways.http.edge import Shortcut
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
        limit, offset = _window(request)
        await after_position(services, request)
        found = await mailboxes.readable(services.pool, address_digest(services, request.path_params["address"]))
        row = allowed(caller, found.row if found else None)
        if found is None or found.kid is None or found.wrapped is None:
            raise problems.mailbox_ended()
        page = services.pages.page((row.mailbox, limit, offset), found.position)
        if page is None:
            data_key = services.keyring.unwrap(row.mailbox, found.kid, found.wrapped)
            listed = await messages.newest(
                services.pool, row.mailbox, before=found.position, limit=limit, offset=offset
            )
            page = self._page(listed, data_key, found.position)
            services.pages.keep((row.mailbox, limit, offset), page)
        headers = {
            LOG_POSITION: position_text(MAILBOX_EVENTS.name, row.partition, page.position),
            "ETag": page.etag,
            "Cache-Control": "private, no-cache",
        }
        if not_modified(request.headers, page.etag):
            return Response(status_code=304, headers=headers)
        return Response(page.body, 200, headers, "application/json")

    def _page(self, listed: list[Listed], data_key: bytes, position: int) -> Page:
        parts = []
        for message in listed:
            line = self._services.pages.line(message.message)
            if line is None:
                line = _line(message, data_key)
                self._services.pages.keep_line(message.message, line)
            parts.append(line[0] + (b"true" if message.is_read else b"false") + line[1])
        body = b"[" + b",".join(parts) + b"]"
        return Page(position, body, f'"{blake2b(body, digest_size=16).hexdigest()}"')


def _window(request: Request) -> tuple[int, int]:
    """How many, and from which on."""
    if not request.scope["query_string"]:
        return DEFAULT_LIMIT, 0
    limit = parameters.whole_number(request, "limit", least=1)
    offset = parameters.whole_number(request, "offset", least=0)
    return min(limit or DEFAULT_LIMIT, LARGEST_LIMIT), offset or 0


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
