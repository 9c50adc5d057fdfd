"""Pages for the end user: plain HTML and one style sheet of our own, with nothing that a script or another host could add."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from gateways.http.problems import RETRY_SECONDS

TEMPLATES: Final = Path(__file__).with_name("templates")
#: Fixed text of our own, by name: kept beside the templates and read once.
STYLE: Final = (TEMPLATES / "connect.css").read_text()
NOT_NOW: Final = (
    "We can't do this just now. Please reload this page in a moment; where that does not help, go back to where you came "
    "from and begin again."
)
ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def page(template: str, *, root: str, status: int = 200, leads_to: Sequence[str] = (), **said: Any) -> Response:
    """A page from a template. `root` is the path of our public URL, `leads_to` the origins its forms may end at.

    Browsers hold redirects after a form to `form-action`, and a provider sends people on to hosts of its own: so any https
    is allowed beside ourselves, and http where an operator's own server speaks nothing else.
    """
    forms = " ".join(["'self'", "https:", *leads_to])
    policy = f"default-src 'none'; style-src 'self'; form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
    body = ENVIRONMENT.get_template(template).render(root=root, **said)
    return HTMLResponse(body, status, {"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def notice(root: str, status: int, heading: str, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """A page that says one thing."""
    response = page("notice.html", root=root, status=status, heading=heading, sentence=sentence)
    response.headers.update(headers or {})
    return response


def not_now(root: str) -> Response:
    """A page for when we can't be sure of anything: whether a link was used up by now, too."""
    return notice(root, 503, "Not available now", NOT_NOW, {"Retry-After": str(RETRY_SECONDS)})


def style_sheet() -> Response:
    return Response(STYLE, 200, {"Cache-Control": "public, max-age=3600"}, "text/css; charset=utf-8")


def redirect(url: str, status: int = 303) -> Response:
    """To exactly this URL: what it says has been checked, and is not put in another form."""
    return Response(status_code=status, headers={"Location": url, "Cache-Control": "no-store"})
