"""The routes of connecting: those that a product asks with its API key, and those that browsers go through."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateways.http.connect import own_servers, starting
from gateways.http.connect.callback import Callback
from gateways.http.connect.entering import Entering
from gateways.http.connect.page import ConnectPage
from gateways.http.connect.parts import Connecting
from gateways.http.connect.rendering import not_now, notice, style_sheet
from gateways.http.operations import Operation
from gateways.http.problems import KINDS, Problem
from gateways.http.services import Services
from gateways.stores.postgres import UNREACHABLE

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

FAULT: Final = "A fault of ours kept this from being done. Please go back to where you came from and begin again."


def routes(services: Services, connecting: Connecting) -> APIRouter:
    """All of them. `connecting.uses` has to be running."""
    router = APIRouter()
    for part in (starting, own_servers):
        # Beside ours, not below: a 405 is answered from the list of all routes.
        router.routes.extend(part.routes(services, connecting).routes)
    page, callback = ConnectPage(services, connecting), Callback(services, connecting)
    entering = Entering(connecting, page)

    async def style(request: Request) -> Response:
        del request
        return style_sheet()

    _browser(router, connecting, "GET", "/connect/style.css", style)
    _browser(router, connecting, "GET", "/connect", entering.page)
    _browser(router, connecting, "GET", "/connect/{provider}", entering.provider)
    _browser(router, connecting, "POST", "/connect/{provider}", page.begin)
    _browser(router, connecting, "GET", "/v1/connect/{provider}/callback", callback.get)
    _browser(router, connecting, "POST", "/v1/connect/{provider}/callback", callback.post)
    return router


def _browser(router: APIRouter, connecting: Connecting, method: str, path: str, handler: Handler) -> None:
    """A route for people: what it refuses is a page."""

    async def plainly(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            title = KINDS[problem.code].title
            return notice(connecting.root, problem.status, title, problem.detail, problem.headers)
        except UNREACHABLE:
            return not_now(connecting.root)
        except Exception:
            log.exception("a page failed by a fault of ours", extra={"request_id": request.scope["request_id"]})
            return notice(connecting.root, 500, "Something went wrong", FAULT)

    router.add_api_route(
        path,
        plainly,
        methods=[method],
        name=f"{method} {path}",
        response_model=None,
        include_in_schema=False,
        route_class_override=Operation,
    )
