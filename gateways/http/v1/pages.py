"""Pages of lists: `limit` and an opaque `cursor` in, `{items, nextCursor}` out.

A cursor names the last item of its page, never a number of items to leave out, so what is new or gone in the meantime
shifts nothing. It can be used with other filters: the list goes on after that item all the same.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request

from gateways.http import parameters, problems
from gateways.http.message_lists import DEFAULT_LIMIT, LARGEST_LIMIT
from gateways.http.operations import TEXT, number_parameter, parameter, strong_etag
from gateways.http.v1.bodies import Faults

NOT_OURS: Final = "`cursor` has to be the `nextCursor` of an earlier answer, as it is."
NAMES: Final = ("limit", "cursor")
PARAMETERS: Final = (
    number_parameter(
        "limit",
        f"How many; {DEFAULT_LIMIT:,} where missing, at most {LARGEST_LIMIT:,}: more is capped.",
        least=1,
        example=50,
    ),
    parameter("cursor", "query", "The `nextCursor` of the page before.", TEXT, "MTI") | {"example": None},
)


def limit_of(request: Request, faults: Faults) -> int:
    """How many items are asked for."""
    asked = faults.tried(lambda: parameters.whole_number(request, "limit", least=1))
    return min(asked or DEFAULT_LIMIT, LARGEST_LIMIT)


def cursor_of(request: Request, item: re.Pattern[str], faults: Faults) -> str | None:
    """The item that the page before ended with, which matches `item`; None for the first page."""
    return faults.tried(lambda: _cursor(request.query_params.get("cursor"), item))


def _cursor(text: str | None, item: re.Pattern[str]) -> str | None:
    if text is None:
        return None
    try:
        found = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError:
        found = ""
    if not item.fullmatch(found):
        raise problems.invalid("/query/cursor", NOT_OURS)
    return found


def page(items: Sequence[bytes], last: str | None) -> tuple[bytes, str]:
    """The JSON of these items, each a JSON text, and its ETag; `last` names the last item where there are more."""
    cursor = b'"' + urlsafe_b64encode(last.encode()).rstrip(b"=") + b'"' if last else b"null"
    body = b'{"items":[' + b",".join(items) + b'],"nextCursor":' + cursor + b"}"
    return body, strong_etag(body)
