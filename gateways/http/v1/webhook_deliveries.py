"""What was told to an endpoint, attempt by attempt, and telling it once more."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, get_args

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.callbacks import CallbackRefused, ResendCallback
from gateways.http import problems
from gateways.http.asking import settled
from gateways.http.json_bodies import json_object
from gateways.http.operations import AFTER_PARAMETER, SAME, TEXT, declare, json_response, list_response, parameter
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.services import Services
from gateways.http.tracing import trace_of
from gateways.http.v1 import pages
from gateways.http.v1.bodies import Faults, Members
from gateways.http.v1.pending import TELL, declare_write
from gateways.http.v1.queries import query_of
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT, POSITION
from gateways.http.v1.webhook_shapes import (
    DELIVERY,
    Deliveries,
    DeliveryStarted,
    DeliveryStatus,
    Resent,
    Since,
)
from gateways.http.v1.webhooks import OF_ONE, PREFIX, WEBHOOK_PARAMETER, enabled, row_of, webhook_id
from gateways.http.who import Caller, account_caller
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.log.decisions import Asked
from projections import deliveries
from projections.deliveries import DeliveryRow
from schemas import commands, topics
from schemas.envelope import milliseconds, moment, stamp
from schemas.ids import ALPHABET

DELIVERY_ID: Final = re.compile(f"whd_[{ALPHABET}]{{26}}")
DELIVERY_PARAMETER: Final = parameter("delivery_id", "path", "The delivery's id.", TEXT, DELIVERY)
STATUSES: Final = get_args(DeliveryStatus)
STATUS_PARAMETER: Final = parameter(
    "status", "query", "Only those in this state.", {**TEXT, "enum": [*STATUSES]}, "failed"
)
QUERY: Final = ("status", *pages.NAMES)
#: Deliveries that one request sends once more, and how many of them are asked for together.
MOST_RESENT: Final = 1000
TOGETHER: Final = 20


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["webhooks"])
    told = Told(services)
    path = PREFIX + "/{webhook_id}"
    declare(
        router, "GET", f"{path}/deliveries", told.list_all, name="listDeliveries", summary="List deliveries",
        answers={200: {"model": Deliveries, "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", *OF_ONE), security=API_KEY,
        parameters=(WEBHOOK_PARAMETER, STATUS_PARAMETER, *pages.PARAMETERS, AFTER_PARAMETER),
    )  # fmt: skip
    declare_write(
        router, services, "POST", path + "/deliveries/{delivery_id}/resend", told.resend, kind=TELL,
        name="resendDelivery", summary="Send a delivery once more",
        answers={202: {"model": DeliveryStarted, "description": "It is on its way, under the same `webhook-id`."}},
        refusals=("webhook_disabled", *OF_ONE), security=API_KEY,
        parameters=(WEBHOOK_PARAMETER, DELIVERY_PARAMETER),
    )  # fmt: skip
    declare(
        router, "POST", f"{path}/resend", told.resend_since, name="resendDeliveries",
        summary="Send all deliveries since a time once more",
        answers={202: {"model": Resent, "description": "They are on their way, each under its own `webhook-id`."}},
        refusals=("invalid_request", "webhook_disabled", "not_found", "too_large", "outcome_unknown", *OF_ACCOUNT),
        security=API_KEY, parameters=(WEBHOOK_PARAMETER,),
        body={"application/json": {"schema": Since.model_json_schema()}},
    )  # fmt: skip
    return router


class Told:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_all(self, request: Request) -> Response:
        """What the endpoint was told, or is to be, the newest first."""
        caller = await account_caller(self._services, request, "webhooks:read")
        page, endpoint = wanted_page(request), webhook_id(request)
        await after_position(self._services, request)
        await row_of(self._services, caller, endpoint)
        rows = await deliveries.of_endpoint(
            self._services.pool, endpoint, limit=page.limit + 1, before=page.before, status=page.status
        )
        return list_response(request, *page.shown(rows))

    async def resend(self, request: Request) -> Response:
        """Whatever became of it; its schedule of attempts begins anew."""
        services = self._services
        caller = await account_caller(services, request, "webhooks:write")
        endpoint = webhook_id(request)
        await row_of(services, caller, endpoint)
        row = await deliveries.by_id(services.pool, endpoint, delivery_id(request))
        if row is None:
            raise problems.not_found()
        await enabled(services, caller, endpoint)
        return await resent(services, request, caller, row)

    async def resend_since(self, request: Request) -> Response:
        """At most a thousand at a time; where there are more, or not all could be taken on, `next` says from when on to ask
        again."""
        services = self._services
        caller = await account_caller(services, request, "webhooks:write")
        endpoint = (await enabled(services, caller, webhook_id(request))).endpoint
        since, status = _since(await json_object(request))
        rows = await deliveries.since(services.pool, endpoint, since, limit=MOST_RESENT + 1, status=status)
        count, left = await self._ask_all(request, caller, rows[:MOST_RESENT])
        further = left or rows[MOST_RESENT:]
        said = {"count": count, "next": stamp(further[0].created_at) if further else None}
        return json_response(said, 202, dict(NO_STORE))

    async def _ask_all(
        self, request: Request, caller: Caller, rows: list[DeliveryRow]
    ) -> tuple[int, list[DeliveryRow]]:
        """How many are sent once more, and those from the first on that is not.

        Raises what the log raises where it is none: of what is said to have failed nothing may have happened.
        """
        count = 0
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            said = await asyncio.gather(*[self._ask(request, caller, row) for row in some], return_exceptions=True)
            failed = {number: one for number, one in enumerate(said) if one is not None}
            count += len(some) - len(failed)
            if failed:
                worst = max(failed.values(), key=lambda one: not isinstance(one, NotPromised))
                if count == 0 or not isinstance(worst, NotPromised | OutcomeUnknown):
                    raise worst
                return count, rows[start + min(failed) :]
        return count, []

    async def _ask(self, request: Request, caller: Caller, row: DeliveryRow) -> None:
        """Once the command is in the log it will be sent: nobody waits for it."""
        await self._services.command_log.command(
            topics.WEBHOOK_COMMANDS.name,
            row.callback.key,
            ResendCallback(row.callback, caller.by),
            vocabulary=commands.WEBHOOK,
            subject=row.delivery,
            trace=trace_of(request),
        )


def _since(body: dict[str, Any]) -> tuple[datetime, str | None]:
    """Raises a Problem (400) that tells all that is wrong."""
    faults = Faults()
    members = Members(body, ("since", "status"), faults)
    text, status = members.text("since", most=40), members.text("status", most=20, required=False)
    since = datetime.now(UTC)
    if text:
        try:
            since = datetime.fromisoformat(text)
            if since.tzinfo is None:
                faults.add("/since", "`since` needs an offset, as in `2026-03-13T15:30:00Z`.")
            else:
                since = since.astimezone(UTC)
        except (ValueError, OverflowError):
            faults.add("/since", "`since` has to be a time like `2026-03-13T15:30:00Z`.")
    if status and status not in STATUSES:
        faults.add("/status", f"`status` has to be one of {', '.join(STATUSES)}.")
    faults.refuse()
    return since, status or None


@dataclass(frozen=True, slots=True)
class Order:
    """How a list of deliveries is ordered: what its cursors look like, which a row's is, and the place that one names."""

    cursor: re.Pattern[str]
    of: Callable[[DeliveryRow], str]
    place: Callable[[str], Any]


def _time_and_delivery(cursor: str) -> tuple[datetime, str]:
    at, _, delivery = cursor.partition("/")
    return moment(int(at)), delivery


#: Of what stands in one partition.
BY_POSITION: Final = Order(POSITION, lambda row: str(row.position), int)
#: Of what stands in several.
BY_TIME: Final = Order(
    re.compile(f"[0-9]{{1,13}}/{DELIVERY_ID.pattern}"),
    lambda row: f"{milliseconds(row.created_at)}/{row.delivery}",
    _time_and_delivery,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Which deliveries a list is to show: those behind the place `before`, and that are in this state."""

    limit: int
    before: Any
    status: str | None
    order: Order

    def shown(self, rows: list[DeliveryRow]) -> tuple[bytes, str]:
        """The page that these rows are, of which there may be one too many, and its ETag."""
        last = self.order.of(rows[self.limit - 1]) if len(rows) > self.limit else None
        return pages.page([_json(row) for row in rows[: self.limit]], last)


def wanted_page(request: Request, order: Order = BY_POSITION) -> Page:
    """Raises a Problem (400) that tells all that is wrong."""
    faults = Faults()
    status = query_of(request, QUERY, faults).get("status")
    if status is not None and status not in STATUSES:
        faults.add("/query/status", f"`status` has to be one of {', '.join(STATUSES)}.")
    limit, before = pages.limit_of(request, faults), pages.cursor_of(request, order.cursor, faults)
    faults.refuse()
    return Page(limit, order.place(before) if before else None, status, order)


def delivery_id(request: Request) -> str:
    """The delivery that the path names; what can't be an id is not there."""
    found: str = request.path_params["delivery_id"]
    if not DELIVERY_ID.fullmatch(found):
        raise problems.not_found()
    return found


async def resent(services: Services, request: Request, caller: Caller, row: DeliveryRow) -> Response:
    """The answer to having this sent once more. Raises a Problem, and what Decisions.ask raises."""
    callback = row.callback
    command = ResendCallback(callback, caller.by)
    asked = Asked(topics.WEBHOOK_COMMANDS.name, callback.key, row.delivery, command, deliveries.PROJECTION.name)
    decision = await settled(services.webhook_decisions, request, asked)
    if isinstance(decision.event, CallbackRefused) and decision.event.reason == "unknown":
        raise problems.not_found()
    return json_response({"id": row.delivery}, 202, {**NO_STORE, LOG_POSITION: decision.log_position})


def _json(row: DeliveryRow) -> bytes:
    return orjson.dumps(
        {
            "id": row.delivery,
            "webhookId": row.endpoint,
            "messageId": row.message,
            "type": row.type,
            "status": row.status,
            "attempts": orjson.Fragment(row.attempts),
            "nextAttemptAt": stamp(row.next_at) if row.next_at else None,
            "createdAt": stamp(row.created_at),
        }
    )
