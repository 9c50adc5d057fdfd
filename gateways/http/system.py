"""What operators and tools ask: is it alive, is it ready, how is it doing, and what are its bounds."""

import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from domain.attachments import MOST_BYTES, MOST_OF_A_SEND
from domain.callbacks import ATTEMPTS
from domain.connection_events import MOST_CONNECTIONS
from domain.plans import BUILT_IN, LONGEST_LIFETIME_MINUTES
from domain.webhooks import MOST_ENDPOINTS
from gateways.http import message_lists, problems
from gateways.http.edge import BODY_BYTES, BODY_SECONDS
from gateways.http.operations import TEXT, declare, json_response, parameter
from gateways.http.rate_headers import GUESSES
from gateways.http.readiness import Readiness
from gateways.http.services import Services
from gateways.http.serving import HEAD_BYTES, HEAD_SECONDS, WEBSOCKET_BYTES
from gateways.http.v1.bodies import ADDRESS_OCTETS
from gateways.http.v1.new_users import DISPLAY_NAME_CHARACTERS, EXTERNAL_ID_CHARACTERS
from gateways.http.v1.new_webhooks import URL_CHARACTERS
from gateways.http.v1.operations import KEPT, SECRET_KEPT
from gateways.http.v1.send_bodies import FARTHEST, HEADER_CHARACTERS, MOST_HEADERS, SUBJECT_CHARACTERS
from gateways.http.v1.send_people import MOST_NAMED, MOST_RECIPIENTS, MOST_REPLY_TO, NAME_CHARACTERS
from gateways.http.v1.send_routes import LARGEST_PAGE
from gateways.http.v1.send_sizes import MOST_ENCODED
from gateways.http.v1.send_waits import LONGEST_SECONDS
from gateways.http.v1.uploads import NAME_BYTES
from gateways.http.v1.uploads import SECONDS as UPLOAD_SECONDS
from gateways.http.v1.webhook_deliveries import MOST_RESENT
from gateways.stores.consents import LIFE_SECONDS, SESSION_SECONDS
from gateways.stores.rates import Limit
from gateways.webhooks.receivers import SECONDS as ANSWER_SECONDS
from projections import accounts

LONGEST_WAIT_SECONDS: Final = 120.0
WAIT: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s)?")
#: The bounds of a mail that is asked to be sent, which no setting changes.
OF_SENDS: Final[Mapping[str, Any]] = {
    "recipients": MOST_RECIPIENTS,
    "recipientsNamed": MOST_NAMED,
    "recipientNameCharacters": NAME_CHARACTERS,
    "replyTo": MOST_REPLY_TO,
    "subjectCharacters": SUBJECT_CHARACTERS,
    "headers": MOST_HEADERS,
    "headerCharacters": HEADER_CHARACTERS,
    "encodedBytes": dict(MOST_ENCODED),
    "scheduledDays": FARTHEST.days,
    "waitSeconds": LONGEST_SECONDS,
    "listLimit": LARGEST_PAGE,
}


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["system"])
    system = System(services)
    plain = {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": TEXT}}}
    wait = parameter("wait", "query", "How long to wait for readiness, as in `30s`.", TEXT, "30s")
    report = {"description": "Each dependency and whether it answers."}
    open_to_all: list[dict[str, list[str]]] = []
    declare(
        router, "GET", "/livez", system.livez, name="livez", summary="Is the process alive?",
        answers={200: {"description": "Its loop runs."}}, security=open_to_all,
    )  # fmt: skip
    declare(
        router, "GET", "/readyz", system.readyz, name="readyz", summary="Do its dependencies answer?",
        answers={200: report, 503: report}, refusals=("invalid_request",), parameters=(wait,), security=open_to_all,
    )  # fmt: skip
    declare(
        router, "GET", "/metrics", system.metrics, name="metrics", summary="Measurements for Prometheus",
        answers={200: plain}, security=open_to_all,
    )  # fmt: skip
    declare(
        router, "GET", "/v1/limits", system.limits, name="getLimits", summary="Every bound there is",
        answers={200: {"description": "Bytes, seconds and counts."}}, refusals=("unavailable",), security=open_to_all,
    )  # fmt: skip
    return router


class System:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._readiness = Readiness(services)

    async def livez(self, request: Request) -> Response:
        """Never asks a dependency: restarting this process would not mend one."""
        del request
        return json_response({"ok": True})

    async def readyz(self, request: Request) -> Response:
        """200 once Postgres, Kafka and the projections answer, 503 otherwise."""
        ready, found = await self._readiness.report(_wait_seconds(request))
        return json_response({"ok": ready, "dependencies": found}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Counts and times of this process since its start."""
        del request
        return Response(generate_latest(self._services.metrics), media_type=CONTENT_TYPE_LATEST)

    async def limits(self, request: Request) -> Response:
        """What is refused or cut beyond these; plans hold for mailboxes opened from now on."""
        del request
        plans = {name: await accounts.plan(self._services.pool, name) or plan for name, plan in BUILT_IN.items()}
        said: dict[str, Any] = {
            "http": {
                "bodyBytes": BODY_BYTES,
                "bodySeconds": BODY_SECONDS,
                "headBytes": HEAD_BYTES,
                "headSeconds": HEAD_SECONDS,
                "webSocketFrameBytes": WEBSOCKET_BYTES,
                "listLimit": message_lists.LARGEST_LIMIT,
            },
            "rates": {
                "on": self._services.rates_on,
                "creation": _rate(self._services.creation_limit),
                "requests": _rate(self._services.request_limit),
                "sends": _rate(self._services.send_limit),
                "guesses": _rate(GUESSES),
            },
            "mailboxes": {"longestLifetimeMinutes": LONGEST_LIFETIME_MINUTES},
            "users": {
                "emailOctets": ADDRESS_OCTETS,
                "displayNameCharacters": DISPLAY_NAME_CHARACTERS,
                "externalIdCharacters": EXTERNAL_ID_CHARACTERS,
                "connections": MOST_CONNECTIONS,
            },
            "operations": {"keptDays": KEPT.days, "secretSeconds": int(SECRET_KEPT.total_seconds())},
            "webhooks": {
                "endpoints": MOST_ENDPOINTS,
                "urlCharacters": URL_CHARACTERS,
                "attempts": ATTEMPTS,
                "answerSeconds": ANSWER_SECONDS,
                "resentAtOnce": MOST_RESENT,
            },
            "attachments": {
                "bytes": MOST_BYTES,
                "uploadSeconds": UPLOAD_SECONDS,
                "nameBytes": NAME_BYTES,
                "ofOneSend": MOST_OF_A_SEND,
                "unusedDays": self._services.attachment_days,
                "linkSeconds": self._services.link_seconds,
            },
            "sends": dict(OF_SENDS),
            "connecting": {
                "ticketSeconds": LIFE_SECONDS,
                "consentSeconds": LIFE_SECONDS,
                "pageSeconds": SESSION_SECONDS,
            },
            "plans": {
                name: {
                    "defaultTtlMinutes": plan.limits.default_ttl_minutes,
                    "longestTtlMinutes": plan.limits.longest_ttl_minutes,
                    "liveMailboxes": plan.limits.live_mailboxes,
                    "liveMessages": plan.limits.live_messages,
                }
                for name, plan in plans.items()
            },
        }
        return json_response(said)


def _rate(limit: Limit) -> dict[str, int]:
    return {"most": limit.most, "seconds": limit.seconds}


def _wait_seconds(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    found = WAIT.fullmatch(text)
    if found is None:
        raise problems.invalid("/query/wait", "`wait` has to be a time like `30s`.")
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
    return min(seconds, LONGEST_WAIT_SECONDS)
