"""What went wrong below the HTTP surface, as the problem its caller is told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiokafka.errors import KafkaError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateways.http import problems
from gateways.http.edge import instance_of
from gateways.http.problems import Fault, Problem
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.log.decisions import Unsettled
from gateways.log.raw_mail import RawMailUnavailable
from gateways.mail_in.door import Unavailable
from gateways.mail_in.sns import Refused
from gateways.stores.blobs import BlobMissing, BlobsAway
from gateways.stores.keyset import KeysetError
from gateways.stores.mail_store import Erased
from gateways.stores.postgres import UNREACHABLE
from gateways.stores.sealing import Unsealable


def problem_of(error: Exception) -> Problem | None:
    """What the caller is told of this; None where it is our own fault (500)."""
    for kind in type(error).__mro__:
        if kind in MEANINGS:
            return MEANINGS[kind](error)
    return None


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Has the framework answer with problems too. `routes` are all there are: a 405 names the methods of a path by them."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error) or problems.fault_of_ours()
        if problem.status == 405:
            allowed = ", ".join(_methods(routes, request.scope["path"]))
            problem = replace(problem, headers={"Allow": allowed}, detail=f"This path takes {allowed} only.")
        return problem.response(instance_of(request.scope), request.scope["request_id"])

    for kind in (Exception, *MEANINGS):
        app.add_exception_handler(kind, answer)


def _methods(routes: Sequence[BaseRoute], path: str) -> list[str]:
    """Of all routes of a path (RFC 9110 10.2.1); the framework names those of the first only."""
    found = [route for route in routes if isinstance(route, Route | APIRoute) and route.path_regex.fullmatch(path)]
    methods = {method for route in found for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _validation(error: RequestValidationError) -> Problem:
    faults = [Fault("/" + "/".join(str(part) for part in found["loc"]), f"{found['msg']}.") for found in error.errors()]
    return problems.invalid_all(faults)


def _refused(error: Refused) -> Problem:
    return Problem(error.code, error.detail, _retry_after(error.retry_after))


def _unavailable(error: Unavailable) -> Problem:
    return Problem("unavailable", str(error), _retry_after(error.retry_after))


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _erased(_: Exception) -> Problem:
    return Problem("gone", "This mail has been erased.")


MEANINGS: Final[Mapping[type, Callable[[Any], Problem]]] = {
    Problem: lambda problem: problem,
    HTTPException: lambda error: problems.of_status(error.status_code, error.headers),
    RequestValidationError: _validation,
    NotPromised: lambda _: problems.unavailable(),
    OutcomeUnknown: lambda _: problems.outcome_unknown(),
    Unsettled: lambda _: problems.outcome_unknown(),
    Refused: _refused,
    Unavailable: _unavailable,
    **dict.fromkeys((Erased, BlobMissing, Unsealable), _erased),
    **dict.fromkeys(
        (RawMailUnavailable, BlobsAway, KafkaError, KeysetError, *UNREACHABLE), lambda _: problems.unavailable()
    ),
}
