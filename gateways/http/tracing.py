"""Which trace a request belongs to (W3C Trace Context)."""

import re
from typing import Final

from starlette.requests import Request

from schemas.envelope import new_traceparent

#: Version 00; ids of zeroes are no ids.
TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(request: Request) -> dict[str, str]:
    """The trace as records carry it on: the caller's, or one that begins here."""
    said = request.headers.get("traceparent", "")
    return {"traceparent": said if TRACEPARENT.fullmatch(said) else new_traceparent()}
