"""In the child: what is asked, what is answered, and how Graph says no."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

#: What Graph says where a failure of a test names only the status.
CODES = {
    400: "BadRequest",
    401: "InvalidAuthenticationToken",
    403: "ErrorAccessDenied",
    404: "ErrorItemNotFound",
    409: "ErrorIrresolvableConflict",
    410: "syncStateNotFound",
    413: "ErrorMessageSizeExceeded",
    429: "ApplicationThrottled",
    500: "ErrorInternalServerTransientError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
    507: "ErrorQuotaExceeded",
}
_AUTHENTICATE = (
    'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", '
    'client_id="00000003-0000-0000-c000-000000000000", error="invalid_token"'
)


@dataclass
class Answer:
    """What goes back: `body` is bytes as they stand, or a document, or nothing; `manner` is how badly it is said."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    manner: dict[str, Any] = field(default_factory=dict)


@dataclass
class Asked:
    """One request, of HTTP or of a batch. Names of headers are in small letters."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    base: str  # the address under which we are known, for links
    login: str | None = None
    scopes: frozenset[str] = frozenset()

    @property
    def path(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.url).path.split("/") if part]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def preferences(self) -> dict[str, str]:
        """The header `Prefer`, such as {"idtype": "ImmutableId"}."""
        parts = [part.strip().partition("=") for part in self.headers.get("prefer", "").split(",")]
        return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name}

    @property
    def immutable(self) -> bool:
        return self.preferences.get("idtype", "").lower() == "immutableid"

    def link(self, **query: str | int) -> str:
        """This request's own address with other options."""
        words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in (self.query | query).items())
        return f"{self.base}{urlsplit(self.url).path}?{words}"


class Refused(Exception):
    """The work isn't done, and this is said instead."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = error(status, code, message, named)


def error(status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> Answer:
    """Graph's way to say no. The layer that writes lays the request's own ids over it."""
    inner = {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "request-id": str(uuid.uuid4())}
    inner["client-request-id"] = inner["request-id"]
    words = {"code": code or CODES.get(status, "UnknownError"), "message": message, "innerError": inner}
    more = {"WWW-Authenticate": _AUTHENTICATE} if status == 401 else {}
    return Answer(status, {"error": words}, more | (headers or {}))


def not_found() -> Refused:
    return Refused(404, "ErrorItemNotFound", "The specified object was not found in the store.")


def bad_request(message: str, code: str = "BadRequest") -> Refused:
    return Refused(400, code, message)


def no_token(message: str) -> Answer:
    return error(401, "InvalidAuthenticationToken", message)
