"""JSON bodies, strictly: what one reader takes and another refuses stops at the door.

Refused are NaN and Infinity, a name that comes twice, numbers that not every reader holds (RFC 8259 6), nesting deeper than
32, and the two that PostgreSQL can't keep: U+0000 and lone surrogates. A command with one of those could be accepted and
never be shown.
"""

import json
import math
from typing import Any, Final, NoReturn

from starlette.requests import Request

from gateways.http import problems

#: The largest whole number that every reader holds exactly.
LARGEST_NUMBER: Final = 2**53 - 1
DEEPEST: Final = 32


async def json_object(request: Request) -> dict[str, Any]:
    """The request's body, empty where there is none; raises a Problem (422) where it is not one plain JSON object."""
    body = await request.body()
    if not body.strip():
        return {}
    try:
        found = read(body)
    except RecursionError as error:
        raise problems.invalid("", f"The body is nested deeper than {DEEPEST}.") from error
    except ValueError as error:
        fault = "is not JSON in UTF-8" if isinstance(error, (json.JSONDecodeError, UnicodeError)) else str(error)
        raise problems.invalid("", f"The body {fault}.") from error
    if not isinstance(found, dict):
        raise problems.invalid("", "The body has to be a JSON object.")
    return found


def read(body: bytes) -> Any:
    """The value that a JSON text stands for. Raises ValueError, RecursionError."""
    found = json.loads(
        body.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer, parse_float=_float
    )
    _check(found, 0)
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has a name twice in one object")
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError("holds NaN or Infinity, which are no JSON")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > LARGEST_NUMBER:
        raise ValueError("holds a number that not every reader can hold")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("holds a number that not every reader can hold")
    return number


def _check(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"is nested deeper than {DEEPEST}")
    if isinstance(value, str):
        if "\0" in value or not (value.isascii() or _is_unicode(value)):
            raise ValueError("holds U+0000 or a lone surrogate")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check(name, depth)
            _check(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check(member, depth + 1)


def _is_unicode(text: str) -> bool:
    """Whether there is no lone surrogate in it: there is no UTF-8 of one (RFC 3629 3)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
