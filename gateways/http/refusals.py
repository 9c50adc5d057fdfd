"""What went wrong below the HTTP surface, as the problem its caller is told."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.errors import KafkaError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateways.http import problems
from gateways.http.edge import instance_of
from gateways.http.problems import Fault, Problem
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.log.decisions import Unsettled
from gateways.log.raw_mail import RawMailUnavailable
from gateways.stores.blobs import BlobMissing
from gateways.stores.mail_store import Erased
from gateways.stores.postgres import UNREACHABLE
from gateways.stores.sealing import Unsealable

Translate = Callable[[Any], Problem]


def install(app: FastAPI) -> None:
    """Has every exception that means something to the caller answered as a problem; the rest is our own fault (500)."""
    translations: dict[type[Exception], Translate] = {
        Problem: lambda problem: problem,
        HTTPException: lambda error: problems.of_status(error.status_code, error.headers),
        RequestValidationError: _validation,
        NotPromised: lambda _: problems.unavailable(),
        OutcomeUnknown: lambda _: problems.outcome_unknown(),
        Unsettled: lambda _: problems.outcome_unknown(),
        **dict.fromkeys((Erased, BlobMissing, Unsealable), lambda _: Problem("gone", "This mail has been erased.")),
        **dict.fromkeys((RawMailUnavailable, KafkaError, *UNREACHABLE), lambda _: problems.unavailable()),
    }
    for kind, translate in translations.items():
        app.add_exception_handler(kind, _handler(translate))


def _handler(translate: Translate) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return translate(error).response(instance_of(request.scope), request.scope["request_id"])

    return answer


def _validation(error: RequestValidationError) -> Problem:
    faults = [Fault("/" + "/".join(str(part) for part in found["loc"]), f"{found['msg']}.") for found in error.errors()]
    detail = "Parts of the request are not valid." if len(faults) != 1 else faults[0].message
    return Problem("invalid_request", detail, errors=faults)
