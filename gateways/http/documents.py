"""The documents: `/openapi.json`, `/asyncapi.json`, and pages to read them in without a script or a byte from elsewhere."""

from html import escape
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateways.http.operations import json_response
from gateways.http.problems import DOCS, KINDS
from gateways.http.services import Services

CACHED: Final = {"Cache-Control": "public, max-age=300"}
POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    **CACHED,
}
STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: 0.9em/1.4 ui-monospace, monospace } pre { overflow: auto; padding: 0.75rem; border: 1px solid #8886 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0 }
section { border-top: 1px solid #8886; margin-top: 2rem }
"""


def routes(services: Services, app: FastAPI) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    async def openapi(request: Request) -> Response:
        del request
        return json_response(app.openapi(), headers=CACHED)

    async def asyncapi(request: Request) -> Response:
        del request
        assert services.asyncapi is not None
        return json_response(services.asyncapi(), headers=CACHED)

    async def docs(request: Request) -> Response:
        del request
        return HTMLResponse(operations_page(app.openapi()), headers=POLICY)

    async def problem_docs(request: Request) -> Response:
        del request
        return HTMLResponse(problems_page(), headers=POLICY)

    async def front(request: Request) -> Response:
        del request
        return RedirectResponse("/docs", headers=CACHED)

    router.add_route("/", front, ["GET"])
    router.add_route("/openapi.json", openapi, ["GET"])
    router.add_route("/docs", docs, ["GET"])
    router.add_route(DOCS, problem_docs, ["GET"])
    if services.asyncapi is not None:
        router.add_route("/asyncapi.json", asyncapi, ["GET"])
    return router


def problems_page() -> str:
    """Every code, under the anchor that a problem's `type` points to."""
    rows = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{kind.status}</td><td>{escape(kind.title)}.</td>'
        f"<td>{escape(kind.meaning)}</td></tr>"
        for code, kind in KINDS.items()
    )
    head = "<tr><th>code</th><th>status</th><th>title</th><th>what it means</th></tr>"
    return _page("Problems", f"<p>Errors are problem details (RFC 9457).</p><table>{head}{rows}</table>")


def operations_page(document: dict[str, Any]) -> str:
    """Every operation of an OpenAPI document."""
    sections = "".join(
        _operation(method, path, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    links = '<p><a href="/openapi.json">openapi.json</a> · <a href="/docs/problems">problems</a></p>'
    return _page(document["info"]["title"], links + sections)


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    name = escape(operation.get("operationId", ""))
    parameters = "".join(
        f"<tr><td><code>{escape(found['name'])}</code></td><td>{found['in']}</td>"
        f"<td>{escape(found.get('description', ''))}</td></tr>"
        for found in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{status}</td><td>{escape(answer['description'])}{_example(answer, document)}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<section id="{name}"><h2><code>{method.upper()} {escape(path)}</code></h2>'
        f"<p><strong>{escape(operation.get('summary', ''))}.</strong> {escape(operation.get('description', ''))}</p>"
        + (f"<table>{parameters}</table>" if parameters else "")
        + f"<table>{answers}</table></section>"
    )


def _example(answer: dict[str, Any], document: dict[str, Any]) -> str:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    name = (schema.get("$ref") or schema.get("items", {}).get("$ref") or "").rpartition("/")[2]
    example = document.get("components", {}).get("schemas", {}).get(name, {}).get("example")
    if example is None:
        return ""
    lines = "\n".join(f"  {key!s}: {value!r}" for key, value in example.items())
    return f"<pre>{escape(name)}\n{escape(lines)}</pre>"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
