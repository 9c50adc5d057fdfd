"""Temporary inboxes: opening, listing, extending and deleting them."""

import re
from typing import Final
from urllib.parse import quote

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.mailbox_commands import DeleteMailbox, ExtendMailbox
from domain.mailbox_events import MailboxExtended
from domain.plans import LONGEST_LIFETIME_MINUTES
from gateways.http import operations, parameters, problems
from gateways.http.asking import ask
from gateways.http.edge import Shortcut
from gateways.http.message_lists import LARGEST_LIMIT
from gateways.http.new_mailboxes import address_of, addresses_of, open_mailbox
from gateways.http.operations import (
    ADDRESS_PARAMETER,
    AFTER_PARAMETER,
    SAME,
    TEXT,
    declare,
    json_response,
    list_response,
    strong_etag,
)
from gateways.http.parameters import timestamp
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.problems import Problem
from gateways.http.rate_headers import origin_of, refused_by
from gateways.http.services import Services
from gateways.http.shapes import Extended, Mailbox, NewMailbox
from gateways.http.who import allowed, caller_of, mailbox_for
from projections import mailboxes
from projections.mailboxes import MailboxRow

PREFIX: Final = "/api/v1/mailboxes"
NO_STORE: Final = {"Cache-Control": "no-store"}
ASKED_IN_VAIN: Final = ("unavailable", "rate_limited")
OF_MAILBOX: Final = (
    "credentials_invalid", "scope_missing", "foreign_origin", "not_found", "mailbox_ended", *ASKED_IN_VAIN,
)  # fmt: skip
TTL: Final = operations.number_parameter(
    "ttl_minutes", "How long it lives; the plan's default where missing, and capped by the plan.", least=1, example=30
)


def shortcut(services: Services) -> Shortcut:
    """Opening an inbox, which every test run begins with: the framework would take a sixth of its time."""
    return Shortcut("POST", PREFIX, re.compile(re.escape(PREFIX)), Inboxes(services).create)


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["mailboxes"])
    inboxes = Inboxes(services)
    declare(
        router,
        "POST",
        PREFIX,
        inboxes.create,
        name="createMailbox",
        summary="Open a temporary inbox",
        answers={201: {"model": NewMailbox, "description": "It receives from this instant."}},
        refusals=(
            "credentials_invalid",
            "scope_missing",
            "plan_limit_mailboxes",
            "idempotency_key_reused",
            "too_large",
            "invalid_request",
            "outcome_unknown",
            *ASKED_IN_VAIN,
        ),
        parameters=(
            TTL,
            operations.parameter(
                "Idempotency-Key", "header", "Repeats answer as the first did; needs an API key.", TEXT, "order-4711"
            ),
        ),
        security=[{}, {"apiKey": []}],
    )
    declare(
        router,
        "GET",
        PREFIX,
        inboxes.list_open,
        name="listMailboxes",
        summary="List open inboxes",
        answers={200: {"model": list[Mailbox], "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", *(code for code in OF_MAILBOX if code != "not_found")),
        parameters=(*operations.window_parameters(LARGEST_LIMIT, LARGEST_LIMIT), AFTER_PARAMETER),
    )
    _declare_one(router, inboxes)
    return router


def _declare_one(router: APIRouter, inboxes: "Inboxes") -> None:
    """What can be done with one inbox."""
    declare(
        router,
        "GET",
        PREFIX + "/{address}",
        inboxes.show,
        name="getMailbox",
        summary="Look at an inbox",
        answers={200: {"model": Mailbox, "description": "The inbox."}},
        refusals=("invalid_request", *OF_MAILBOX),
        parameters=(ADDRESS_PARAMETER, AFTER_PARAMETER),
    )
    declare(
        router,
        "DELETE",
        PREFIX + "/{address}",
        inboxes.delete,
        name="deleteMailbox",
        summary="Delete an inbox and all it holds",
        answers={204: {"description": "It is gone."}},
        refusals=("outcome_unknown", *OF_MAILBOX),
        parameters=(ADDRESS_PARAMETER,),
    )
    declare(
        router,
        "POST",
        PREFIX + "/{address}/extend",
        inboxes.extend,
        name="extendMailbox",
        summary="Let an inbox live longer",
        answers={200: {"model": Extended, "description": "When it ends now; never earlier than before."}},
        refusals=("invalid_request", "outcome_unknown", *OF_MAILBOX),
        parameters=(ADDRESS_PARAMETER, TTL | {"required": True, "description": "How long it lives from now on."}),
    )


class Inboxes:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, request: Request) -> Response:
        """Anybody may open an inbox; with an API key it belongs to the key's account and has its plan."""
        services = self._services
        caller = await caller_of(services, request, "mailboxes:write") if "authorization" in request.headers else None
        if caller is not None and caller.holder is None:
            raise Problem("api_key_required", "A session token opens no other mailbox: use an API key, or none.")
        if services.rates_on:
            standing = await services.rates.spend(services.creation_limit, origin_of(request.scope))
            request.scope["rate"] = standing
            if standing.refused:
                raise refused_by(standing)
        opened = await open_mailbox(services, request, caller)
        headers = {
            **NO_STORE,
            LOG_POSITION: opened.log_position,
            "Location": f"{PREFIX}/{quote(opened.address, safe='@')}",
        }
        if opened.replayed:
            headers["Idempotency-Replayed"] = "true"
        said = {
            "address": opened.address,
            "expires_at": timestamp(opened.expires_at),
            "session_token": opened.session_token,
        }
        return json_response(said, 201, headers)

    async def list_open(self, request: Request) -> Response:
        """An API key's open inboxes, newest first; a session token's own."""
        services = self._services
        caller = await caller_of(services, request, "mailboxes:read")
        limit, offset = parameters.window(request, usual=LARGEST_LIMIT, most=LARGEST_LIMIT)
        await after_position(services, request)
        if caller.mailbox is not None:
            rows = [allowed(caller, await mailboxes.by_id(services.pool, caller.mailbox))]
        else:
            rows = await mailboxes.open_of_owner(services.pool, caller.owner)
        rows = rows[offset : offset + limit]
        addresses = await addresses_of(services, rows)
        body = orjson.dumps([_mailbox(row, address) for row, address in zip(rows, addresses, strict=True)])
        return list_response(request, body, strong_etag(body))

    async def show(self, request: Request) -> Response:
        """When it was opened, and when it ends."""
        services = self._services
        caller = await caller_of(services, request, "mailboxes:read")
        await after_position(services, request)
        row = await mailbox_for(services, caller, request.path_params["address"])
        return json_response(_mailbox(row, await address_of(services, row)))

    async def delete(self, request: Request) -> Response:
        """It receives nothing from now on, and its messages are gone."""
        caller = await caller_of(self._services, request, "mailboxes:write")
        row = await mailbox_for(self._services, caller, request.path_params["address"])
        decision = await ask(
            self._services,
            request,
            DeleteMailbox(row.mailbox, caller.by),
            owner=row.owner,
            mailbox=row.mailbox,
            projection=mailboxes.PROJECTION.name,
        )
        return Response(status_code=204, headers={LOG_POSITION: decision.log_position})

    async def extend(self, request: Request) -> Response:
        """Its end is moved to so many minutes from now, as far as its plan allows; it is never moved back."""
        caller = await caller_of(self._services, request, "mailboxes:write")
        minutes = parameters.whole_number(request, "ttl_minutes", least=1)
        if minutes is None:
            raise problems.invalid("/query/ttl_minutes", "`ttl_minutes` is missing.")
        row = await mailbox_for(self._services, caller, request.path_params["address"])
        decision = await ask(
            self._services,
            request,
            ExtendMailbox(row.mailbox, min(minutes, LONGEST_LIFETIME_MINUTES)),
            owner=row.owner,
            mailbox=row.mailbox,
            projection=mailboxes.PROJECTION.name,
        )
        extended: MailboxExtended = decision.event
        said = {"address": await address_of(self._services, row), "expires_at": timestamp(extended.expires_at)}
        return json_response(said, 200, {LOG_POSITION: decision.log_position})


def _mailbox(row: MailboxRow, address: str) -> dict[str, str]:
    return {
        "address": address,
        "expires_at": timestamp(row.expires_at),
        "created_at": timestamp(row.created_at),
    }
