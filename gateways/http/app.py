"""The HTTP application: every route behind one edge."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp

from gateways.http import documents, mailboxes, message_lists, messages, refusals, system
from gateways.http.edge import Edge, Streams
from gateways.http.measures import Measures
from gateways.http.projection_lag import ProjectionLag
from gateways.http.services import Services
from gateways.http.shapes import ProblemDetails, ProblemFault
from gateways.http.v1 import (
    attachments,
    connections,
    operations,
    send_deliveries,
    sends,
    uploads,
    users,
    webhook_deliveries,
    webhooks,
)

TITLE: Final = "Postledger"
DESCRIPTION: Final = (
    "Temporary inboxes: create one, let mail arrive, read it, watch it live. Errors are problem details (RFC 9457), each "
    "with a stable `code` that `/docs/problems` explains."
)
SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An account's API key, `pl_live_…`."},
    "sessionToken": {"type": "http", "scheme": "bearer", "description": "A mailbox's session token, `uct_…`."},
}


def create_app(services: Services, *, routers: Sequence[APIRouter] = (), streams: Sequence[Streams] = ()) -> ASGIApp:
    """The ASGI application. `routers` are further routes; `streams` are asked first, and answer for themselves."""
    app = FastAPI(
        title=TITLE,
        version="1",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    mails = sends.Mails(services)
    ours = (
        messages.routes(services),
        mailboxes.routes(services),
        users.routes(services),
        connections.routes(services),
        attachments.routes(services),
        sends.routes(services, mails),
        operations.routes(services),
        webhooks.routes(services),
        send_deliveries.routes(services),
        webhook_deliveries.routes(services),
        system.routes(services),
    )
    everything = (*ours, *routers, documents.routes(services, app))
    for router in everything:
        app.include_router(router)
    refusals.install(app, [route for router in everything for route in router.routes])
    live = {path: item for found in streams for path, item in found.paths().items()}
    app.openapi = lambda: _openapi(app, live)  # type: ignore[method-assign]  # as FastAPI's documentation extends it
    services.metrics.register(ProjectionLag(services.folded, services.tail))
    shortcuts = [
        sends.shortcut(services, mails),
        message_lists.shortcut(services),
        mailboxes.shortcut(services),
        connections.shortcut(services),
    ]
    measures, bounds = Measures(services.metrics), {attachments.UPLOAD: uploads.BOUND}
    return Edge(app, measures, refusals.problem_of, streams=streams, shortcuts=shortcuts, bounds=bounds)


def _openapi(app: FastAPI, streams: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.1 of every route and stream, with the problem that all of them share."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=DESCRIPTION)
        document["paths"] |= streams
        components = document.setdefault("components", {})
        components["securitySchemes"] = SECURITY_SCHEMES
        schemas = components.setdefault("schemas", {})
        for shape in (ProblemDetails, ProblemFault):
            schemas[shape.__name__] = shape.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas[shape.__name__].pop("$defs", None)
        app.openapi_schema = document
    return app.openapi_schema
