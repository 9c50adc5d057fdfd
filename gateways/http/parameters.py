"""What a request's query, path and headers say, read strictly."""

import re
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request

from gateways.http import problems
from gateways.http.json_bodies import LARGEST_NUMBER
from schemas.ids import ALPHABET

MESSAGE_ID: Final = re.compile(f"msg_[{ALPHABET}]{{26}}")
USER_ID: Final = re.compile(f"usr_[{ALPHABET}]{{26}}")
CONNECTION_ID: Final = re.compile(f"con_[{ALPHABET}]{{26}}")
WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,400}", re.ASCII)
#: Printable ASCII, bare or as a structured field's string (RFC 9651 3.3.3).
IDEMPOTENCY_KEY: Final = re.compile(r'"(?P<quoted>[ !#-\[\]-~]{1,255})"|(?P<bare>[!#-~][ -~]{0,254})')


def whole_number(request: Request, name: str, *, least: int) -> int | None:
    """A parameter of the query, None where it is missing; raises a Problem (422) where it is no number or too small."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not WHOLE_NUMBER.fullmatch(text):
        raise problems.invalid(f"/query/{name}", f"`{name}` has to be a whole number.")
    if int(text) < least:
        raise problems.invalid(f"/query/{name}", f"`{name}` has to be {least} or more.")
    return min(int(text), LARGEST_NUMBER)


def window(request: Request, *, usual: int, most: int) -> tuple[int, int]:
    """How many of a list, and from which on: `usual` where nothing is said, and silently no more than `most`."""
    if not request.scope["query_string"]:
        return usual, 0
    limit = whole_number(request, "limit", least=1)
    offset = whole_number(request, "offset", least=0)
    return min(limit or usual, most), offset or 0


def message_id(request: Request) -> str:
    """The message that the path names; what can't be an id is not there."""
    return _id(request, "message_id", MESSAGE_ID)


def user_id(request: Request) -> str:
    """The user that the path names; what can't be an id is not there."""
    return _id(request, "user_id", USER_ID)


def connection_id(request: Request) -> str:
    """The connection that the path names; what can't be an id is not there."""
    return _id(request, "connection_id", CONNECTION_ID)


def _id(request: Request, name: str, pattern: re.Pattern[str]) -> str:
    found: str = request.path_params[name]
    if not pattern.fullmatch(found):
        raise problems.not_found()
    return found


def idempotency_key(request: Request) -> str | None:
    """The key, without its quotes; raises a Problem (422) where it is not 1 to 255 printable ASCII characters."""
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    found = IDEMPOTENCY_KEY.fullmatch(text.strip())
    if found is None:
        raise problems.invalid("/headers/Idempotency-Key", "`Idempotency-Key` has to be 1 to 255 printable characters.")
    return found["quoted"] or found["bare"]


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as this half of the API writes times: `2026-03-13T15:30:00.000+00:00`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
