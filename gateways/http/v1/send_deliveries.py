"""What was told of one mail, be it to endpoints or to its own `callbackUrl`; and what was told to all `callbackUrl`s."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import problems
from gateways.http.operations import AFTER_PARAMETER, SAME, declare, list_response
from gateways.http.positions import after_position
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.pending import TELL_OF_SEND, declare_write
from gateways.http.v1.send_routes import ONE, SEND_PARAMETER
from gateways.http.v1.sends import send_id
from gateways.http.v1.users import API_KEY
from gateways.http.v1.webhook_deliveries import (
    BY_TIME,
    DELIVERY_PARAMETER,
    STATUS_PARAMETER,
    delivery_id,
    resent,
    wanted_page,
)
from gateways.http.v1.webhook_shapes import Deliveries, DeliveryStarted
from gateways.http.v1.webhooks import OF_ONE, PREFIX, enabled
from gateways.http.who import Caller, account_caller
from projections import deliveries, send_lists
from projections.deliveries import DeliveryRow

CALLBACKS: Final = f"{PREFIX}/callbacks/deliveries"


def routes(services: Services) -> APIRouter:
    """To be asked before those of one endpoint, whose paths would fit as well."""
    router = APIRouter(tags=["webhooks"])
    told = ToldOfSends(services)
    shown: dict[str, Any] = {
        "answers": {200: {"model": Deliveries, "description": "Newest first."}, 304: SAME},
        "refusals": ("invalid_request", *OF_ONE),
        "security": API_KEY,
    }
    page = (STATUS_PARAMETER, *pages.PARAMETERS, AFTER_PARAMETER)
    declare(
        router, "GET", CALLBACKS, told.list_callbacks, name="listCallbackDeliveries",
        summary="List deliveries to callback URLs", parameters=page, **shown,
    )  # fmt: skip
    declare(
        router, "GET", ONE + "/deliveries", told.list_of_send, name="listSendDeliveries",
        summary="List what was told of a mail", parameters=(SEND_PARAMETER, *page), **shown,
    )  # fmt: skip
    declare_write(
        router, services, "POST", ONE + "/deliveries/{delivery_id}/resend", told.resend, kind=TELL_OF_SEND,
        name="resendSendDelivery", summary="Tell of a mail once more",
        answers={202: {"model": DeliveryStarted, "description": "It is on its way, under the same `webhook-id`."}},
        refusals=("webhook_disabled", *OF_ONE), security=API_KEY, parameters=(SEND_PARAMETER, DELIVERY_PARAMETER),
    )  # fmt: skip
    return router


class ToldOfSends:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_callbacks(self, request: Request) -> Response:
        """What was told, or is to be, to `callbackUrl`s that are no endpoint of the account, the newest first."""
        caller = await account_caller(self._services, request, "webhooks:read")
        page = wanted_page(request)
        await after_position(self._services, request)
        rows = await deliveries.of_callbacks(
            self._services.pool, caller.owner, limit=page.limit + 1, before=page.before, status=page.status
        )
        return list_response(request, *page.shown(rows))

    async def list_of_send(self, request: Request) -> Response:
        """What endpoints and its `callbackUrl` were told of it, or are to be, the newest first."""
        caller = await account_caller(self._services, request, "webhooks:read")
        page, send = wanted_page(request, BY_TIME), send_id(request)
        await after_position(self._services, request)
        await self._check(caller, send)
        rows = await deliveries.of_message(
            self._services.pool, caller.owner, send, limit=page.limit + 1, before=page.before, status=page.status
        )
        return list_response(request, *page.shown(rows))

    async def resend(self, request: Request) -> Response:
        """Whatever became of it; its schedule of attempts begins anew."""
        caller = await account_caller(self._services, request, "webhooks:write")
        row = await self._row(caller, send_id(request), delivery_id(request))
        if row.endpoint is not None:
            await enabled(self._services, caller, row.endpoint)
        return await resent(self._services, request, caller, row)

    async def _row(self, caller: Caller, send: str, delivery: str) -> DeliveryRow:
        """Raises a Problem (404)."""
        await self._check(caller, send)
        row = await deliveries.about(self._services.pool, caller.owner, send, delivery)
        if row is None:
            raise problems.not_found()
        return row

    async def _check(self, caller: Caller, send: str) -> None:
        """Raises a Problem (404) where the account has no such mail."""
        if await send_lists.by_id(self._services.pool, caller.owner, send) is None:
            raise problems.not_found()
