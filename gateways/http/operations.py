"""How an operation of the API is declared: a plain function from request to response, and what the documents say of it.

Our handlers read their requests themselves: refusals are sentences of ours, and what is asked thousands of times a second
pays for nothing else.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import problems
from gateways.http.conditional import not_modified
from gateways.http.shapes import ADDRESS, MESSAGE, ProblemDetails

Handler = Callable[[Request], Awaitable[Response]]
Parameter = dict[str, Any]


class Operation(APIRoute):
    """A route whose handler gets the request as it is."""

    def get_route_handler(self) -> Any:
        return self.endpoint


def parameter(name: str, where: str, description: str, schema: dict[str, Any], example: object) -> Parameter:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
        "example": example,
    }


TEXT: Final = {"type": "string"}
ADDRESS_PARAMETER: Final = parameter("address", "path", "The mailbox's address.", TEXT, ADDRESS)
MESSAGE_PARAMETER: Final = parameter("message_id", "path", "The message's id.", TEXT, MESSAGE)
AFTER_PARAMETER: Final = parameter(
    "X-After-Position",
    "header",
    "An `X-Log-Position` that the answer has to have seen; waits up to two seconds for it.",
    TEXT,
    "mailbox.events-0:1",
)
SAME: Final = {"description": "What `If-None-Match` names is still the same."}
BEARER: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"sessionToken": []}]


def number_parameter(name: str, description: str, *, least: int, example: int, required: bool = False) -> Parameter:
    schema = {"type": "integer", "minimum": least}
    return parameter(name, "query", description, schema, example) | {"required": required}


def window_parameters(usual: int, most: int) -> tuple[Parameter, Parameter]:
    """Of a list, as `parameters.window` reads them."""
    limit = f"How many; {usual:,} where missing, at most {most:,}: more is capped."
    return (
        number_parameter("limit", limit, least=1, example=50),
        number_parameter("offset", "How many to leave out.", least=0, example=0),
    )


def declare(
    router: APIRouter,
    method: str,
    path: str,
    handler: Handler,
    *,
    name: str,
    summary: str,
    answers: Mapping[int, dict[str, Any]],
    refusals: Sequence[str] = (),
    parameters: Sequence[Parameter] = (),
    security: Sequence[dict[str, list[str]]] = BEARER,
    body: Mapping[str, Any] | None = None,
) -> None:
    """Adds an operation; `answers` by status as OpenAPI has them (`model` for a JSON shape), `refusals` by problem code,
    `body` what a request has to bring, by media type."""
    more: dict[str, Any] = {"parameters": list(parameters), "security": list(security)}
    if body is not None:
        more["requestBody"] = {"required": True, "content": dict(body)}
    router.add_api_route(
        path,
        handler,
        methods=[method],
        name=name,
        operation_id=name,
        summary=summary,
        description=(handler.__doc__ or "").strip(),
        response_model=None,
        status_code=min(answers),
        responses=refusing(refusals, path) | dict(answers.items()),
        openapi_extra=more,
        route_class_override=Operation,
    )


def refusing(codes: Sequence[str], path: str = "") -> dict[int | str, dict[str, Any]]:
    """The answers of these problem codes at this path, as OpenAPI has them."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(problems.status_at(path, code), []).append(code)
    return {
        status: {
            "description": " or ".join(f"`{code}`" for code in found),
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}}},
        }
        for status, found in by_status.items()
    }


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None, *, media_type: str = "application/json"
) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type)


def strong_etag(body: bytes) -> str:
    """Of a body that is the same where its bytes are."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def list_response(request: Request, body: bytes, etag: str, headers: Mapping[str, str] | None = None) -> Response:
    """A list's JSON, or 304 where `If-None-Match` says that the client has it."""
    said = {**(headers or {}), "ETag": etag, "Cache-Control": "private, no-cache"}
    if not_modified(request.headers, etag):
        return Response(status_code=304, headers=said)
    return Response(body, 200, said, "application/json")
