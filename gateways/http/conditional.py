"""Conditional requests and ranges (RFC 9110 13 and 14), as far as bodies that are held whole need them."""

import re
from typing import Final

from starlette.datastructures import Headers

from gateways.http.problems import Problem

BYTES: Final = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))")


def not_modified(headers: Headers, etag: str) -> bool:
    """Whether the client has this already: `If-None-Match` names it, compared weakly."""
    said = headers.get("if-none-match")
    if said is None:
        return False
    return said.strip() == "*" or etag in {one.strip().removeprefix("W/") for one in said.split(",")}


def byte_range(headers: Headers, size: int, etag: str) -> tuple[int, int] | None:
    """First byte and end of the one range that is asked for, None for the whole.

    Several ranges at once are answered with the whole, as RFC 9110 14.2 allows: they cost more than they help. Raises a
    Problem (416) where the content ends before the range begins.
    """
    said = headers.get("range")
    found = BYTES.fullmatch(said.replace(" ", "")) if said and len(said) <= 100 else None
    if found is None or headers.get("if-range", etag) != etag:
        return None
    if found[3] is not None:
        first, end = max(0, size - int(found[3])), size
    else:
        first, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
        if found[2] and int(found[2]) < int(found[1]):
            return None
    if first >= size:
        raise Problem(
            "range_not_satisfiable",
            f"The content has {size} bytes: ask for some of those.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, end
