"""What browsers send along, read within bounds; what is secret in it is seen by nobody else."""

import asyncio
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request

from gateways.http.problems import Problem

FORM_BYTES: Final = 16_384
FORM_SECONDS: Final = 15


def taken_out(request: Request) -> bytes:
    """The query, which nobody sees in the scope from here on: servers log it, and there are secrets in it."""
    query: bytes = request.scope["query_string"]
    request.scope["query_string"] = b""
    return query


async def form_of(request: Request) -> bytes:
    """A posted form, as it was sent. Raises a Problem (408, 413), also for a body that is no form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Problem("bad_request", "The body has to be a form, `application/x-www-form-urlencoded`.")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > FORM_BYTES:
                    raise Problem("too_large", f"A form may have {FORM_BYTES} bytes here.")
    except TimeoutError:
        raise Problem("request_timeout", f"The body did not arrive within {FORM_SECONDS} s.") from None
    except ClientDisconnect:
        raise Problem("bad_request", "The body ended too early.") from None
    return bytes(body)


def ticket_in(query: bytes) -> str | None:
    """The ticket of a query, None where it names none; one said twice is none that we know."""
    try:
        said = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=20).get("ticket")
    except ValueError:
        return ""
    return None if said is None else said[0] if len(said) == 1 else ""
