"""An account's webhooks: where it is told of what happens, and the secrets that sign what it is told."""

import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.callbacks import Callback, RequestCallback
from domain.webhook_words import TEST, TYPES
from domain.webhooks import (
    MOST_RETIRING,
    AccountSecretRotated,
    EnableWebhook,
    RemoveWebhook,
    RotateAccountSecret,
    RotateWebhook,
    WebhookCommand,
    WebhookRefused,
    WebhookRotated,
)
from gateways.http import problems
from gateways.http.asking import read_back, settled
from gateways.http.operations import AFTER_PARAMETER, SAME, TEXT, declare, json_response, list_response, parameter
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.bodies import Faults
from gateways.http.v1.new_webhooks import make_webhook
from gateways.http.v1.pending import (
    ADD_WEBHOOK,
    ENABLE_WEBHOOK,
    REMOVE_WEBHOOK,
    ROTATE_OWN_SECRET,
    ROTATE_WEBHOOK,
    TELL,
    declare_write,
)
from gateways.http.v1.queries import query_of
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT, POSITION
from gateways.http.v1.webhook_shapes import (
    WEBHOOK,
    AccountSecret,
    DeliveryStarted,
    NewWebhook,
    Webhook,
    Webhooks,
    WebhookWithSecret,
)
from gateways.http.who import Caller, account_caller
from gateways.log.decisions import Asked, Decision
from gateways.stores.sealing import Unsealable, place, unseal
from gateways.webhooks.signing import Signer
from projections import deliveries, webhooks
from projections.webhooks import WebhookRow
from schemas import topics
from schemas.envelope import stamp
from schemas.ids import ALPHABET, new_id

PREFIX: Final = "/v1/webhooks"
WEBHOOK_ID: Final = re.compile(f"whk_[{ALPHABET}]{{26}}")
WEBHOOK_PARAMETER: Final = parameter("webhook_id", "path", "The endpoint's id.", TEXT, WEBHOOK)
OF_ONE: Final = ("not_found", "outcome_unknown", *OF_ACCOUNT)


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["webhooks"])
    hooks = Endpoints(services)
    declare_write(
        router,
        services,
        "POST",
        PREFIX,
        hooks.create,
        kind=ADD_WEBHOOK,
        name="createWebhook",
        summary="Register an endpoint",
        answers={201: {"model": WebhookWithSecret, "description": "It is told of what happens from now on."}},
        refusals=(
            "invalid_request",
            "too_many_webhooks",
            "idempotency_key_reused",
            "gone",
            "too_large",
            *OF_ACCOUNT,
        ),
        parameters=(parameter("Idempotency-Key", "header", "Repeats answer as the first did.", TEXT, "hook-1"),),
        security=API_KEY,
        body={"application/json": {"schema": NewWebhook.model_json_schema()}},
    )
    declare(
        router,
        "GET",
        PREFIX,
        hooks.list_all,
        name="listWebhooks",
        summary="List endpoints",
        answers={200: {"model": Webhooks, "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", "outcome_unknown", *OF_ACCOUNT),
        parameters=(*pages.PARAMETERS, AFTER_PARAMETER),
        security=API_KEY,
    )
    _declare_own_secret(router, services, hooks)
    _declare_one(router, services, hooks)
    return router


def _declare_own_secret(router: APIRouter, services: Services, hooks: "Endpoints") -> None:
    """Before the operations on one endpoint, whose paths would fit as well."""
    declare(
        router, "GET", f"{PREFIX}/secret", hooks.show_secret, name="getWebhookSecret",
        summary="Look at the account's own secret",
        answers={200: {"model": AccountSecret, "description": "It signs what goes to no registered endpoint."}},
        refusals=OF_ACCOUNT, security=API_KEY,
    )  # fmt: skip
    declare_write(
        router, services, "POST", f"{PREFIX}/secret/rotate", hooks.rotate_secret,
        kind=ROTATE_OWN_SECRET, name="rotateWebhookSecret",
        summary="Rotate the account's own secret",
        answers={200: {"model": AccountSecret, "description": "For 24 hours the one before signs as well."}},
        refusals=("rotated_too_often", *OF_ACCOUNT), security=API_KEY,
    )  # fmt: skip


def _declare_one(router: APIRouter, services: Services, hooks: "Endpoints") -> None:
    """What can be done with one endpoint."""
    one: dict[str, Any] = {"parameters": (WEBHOOK_PARAMETER,), "security": API_KEY}
    declare(
        router, "GET", PREFIX + "/{webhook_id}", hooks.show, name="getWebhook", summary="Look at an endpoint",
        answers={200: {"model": Webhook, "description": "The endpoint, without its secret."}},
        refusals=("invalid_request", *OF_ONE), security=API_KEY, parameters=(WEBHOOK_PARAMETER, AFTER_PARAMETER),
    )  # fmt: skip
    declare_write(
        router, services, "DELETE", PREFIX + "/{webhook_id}", hooks.remove,
        kind=REMOVE_WEBHOOK, name="deleteWebhook", summary="Remove an endpoint",
        answers={204: {"description": "It is told of nothing any more."}}, refusals=OF_ONE, **one,
    )  # fmt: skip
    declare_write(
        router, services, "POST", PREFIX + "/{webhook_id}/rotate", hooks.rotate,
        kind=ROTATE_WEBHOOK, name="rotateWebhook",
        summary="Rotate an endpoint's secret",
        answers={200: {"model": WebhookWithSecret, "description": "For 24 hours the one before signs as well."}},
        refusals=("rotated_too_often", *OF_ONE), **one,
    )  # fmt: skip
    declare_write(
        router, services, "POST", PREFIX + "/{webhook_id}/enable", hooks.enable,
        kind=ENABLE_WEBHOOK, name="enableWebhook",
        summary="Enable an endpoint that was disabled",
        answers={200: {"model": Webhook, "description": "It is told of what happens from now on."}},
        refusals=OF_ONE, **one,
    )  # fmt: skip
    declare_write(
        router, services, "POST", PREFIX + "/{webhook_id}/test", hooks.test,
        kind=TELL, name="testWebhook", summary="Send a test",
        answers={202: {"model": DeliveryStarted, "description": "A `webhook.test` is on its way."}},
        refusals=("webhook_disabled", *OF_ONE), **one,
    )  # fmt: skip


class Endpoints:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, request: Request) -> Response:
        """The secret is shown this once. Nothing is told of what happened before."""
        caller = await account_caller(self._services, request, "webhooks:write")
        made = await make_webhook(self._services, request, caller)
        headers = {**NO_STORE, LOG_POSITION: made.log_position, "Location": f"{PREFIX}/{made.row.endpoint}"}
        if made.replayed:
            headers["Idempotency-Replayed"] = "true"
        return Response(await self._one(made.row, with_secret=True), 201, headers, "application/json")

    async def list_all(self, request: Request) -> Response:
        """The account's endpoints, the newest first, also those that were disabled."""
        caller, faults = await account_caller(self._services, request, "webhooks:read"), Faults()
        query_of(request, pages.NAMES, faults)
        limit, before = pages.limit_of(request, faults), pages.cursor_of(request, POSITION, faults)
        faults.refuse()
        await after_position(self._services, request)
        rows = await webhooks.of_account(
            self._services.pool, caller.owner, limit=limit + 1, before=int(before) if before else None
        )
        last = str(rows[limit - 1].position) if len(rows) > limit else None
        return list_response(request, *pages.page(await self._opened(rows[:limit]), last))

    async def show(self, request: Request) -> Response:
        """Where it is, what it is told of, and whether it is disabled."""
        caller = await account_caller(self._services, request, "webhooks:read")
        endpoint = webhook_id(request)
        await after_position(self._services, request)
        return Response(
            await self._one(await row_of(self._services, caller, endpoint)), 200, NO_STORE, "application/json"
        )

    async def remove(self, request: Request) -> Response:
        """What is on its way there is given up; its deliveries can't be looked at any more."""
        caller = await account_caller(self._services, request, "webhooks:write")
        command = RemoveWebhook(caller.owner, webhook_id(request), caller.by)
        decision = await self._settled(request, caller, command.endpoint, command)
        return Response(status_code=204, headers={LOG_POSITION: decision.log_position})

    async def rotate(self, request: Request) -> Response:
        """The new secret is shown this once."""
        caller = await account_caller(self._services, request, "webhooks:write")
        endpoint = webhook_id(request)
        decision = await self._settled(request, caller, endpoint, RotateWebhook(caller.owner, endpoint, caller.by))
        row = await read_back(webhooks.by_id(self._services.pool, caller.owner, endpoint))
        if row is None or not isinstance(decision.event, WebhookRotated):
            raise problems.not_found()
        body = await self._one(row, with_secret=True)
        return Response(body, 200, {**NO_STORE, LOG_POSITION: decision.log_position}, "application/json")

    async def enable(self, request: Request) -> Response:
        """It is told of what happens from now on, and of what failed before only where that is sent again."""
        caller = await account_caller(self._services, request, "webhooks:write")
        endpoint = webhook_id(request)
        decision = await self._settled(request, caller, endpoint, EnableWebhook(caller.owner, endpoint, caller.by))
        body = await self._one(await read_back(row_of(self._services, caller, endpoint)))
        return Response(body, 200, {**NO_STORE, LOG_POSITION: decision.log_position}, "application/json")

    async def test(self, request: Request) -> Response:
        """It is signed and tried like any other, and stands among the endpoint's deliveries."""
        services = self._services
        caller = await account_caller(services, request, "webhooks:write")
        row = await enabled(services, caller, webhook_id(request))
        delivery, now = new_id("whd"), stamp(datetime.now(UTC))
        body = orjson.dumps({"type": TEST, "timestamp": now, "data": {"webhookId": row.endpoint}}).decode()
        command = RequestCallback(Callback(delivery, caller.owner, row.endpoint, TEST, body))
        asked = Asked(topics.WEBHOOK_COMMANDS.name, row.endpoint, delivery, command, deliveries.PROJECTION.name)
        decision = await settled(services.webhook_decisions, request, asked)
        return json_response({"id": delivery}, 202, {**NO_STORE, LOG_POSITION: decision.log_position})

    async def show_secret(self, request: Request) -> Response:
        """It can be looked at again: whoever may write webhooks may rotate it anyway."""
        caller = await account_caller(self._services, request, "webhooks:write")
        version = await webhooks.own_secret(self._services.pool, caller.owner)
        return json_response(self._own_secret(caller, version), 200, dict(NO_STORE))

    async def rotate_secret(self, request: Request) -> Response:
        """For `callbackUrl`s that are no endpoint of the account."""
        caller = await account_caller(self._services, request, "webhooks:write")
        command = RotateAccountSecret(caller.owner, caller.by)
        decision = await self._settled(request, caller, caller.owner, command)
        if not isinstance(decision.event, AccountSecretRotated):
            raise problems.unavailable()
        said = self._own_secret(caller, decision.event.key_version)
        return json_response(said, 200, {**NO_STORE, LOG_POSITION: decision.log_position})

    async def _settled(self, request: Request, caller: Caller, subject: str, command: WebhookCommand) -> Decision:
        asked = Asked(topics.ACCOUNT_COMMANDS.name, caller.owner, subject, command, webhooks.PROJECTION.name)
        decision = await settled(self._services.account_decisions, request, asked)
        match decision.event:
            case WebhookRefused(reason="unknown_endpoint"):
                raise problems.not_found()
            case WebhookRefused(reason="too_many_secrets"):
                sentence = f"{MOST_RETIRING} earlier secrets sign still: each does so for 24 hours."
                raise Problem("rotated_too_often", sentence)
        return decision

    def _own_secret(self, caller: Caller, version: int) -> dict[str, str]:
        signer = Signer.of(self._services.keyset, caller.owner, version)
        return {"secret": signer.secret, "publicKey": signer.public_key}

    async def _one(self, row: WebhookRow, *, with_secret: bool = False) -> bytes:
        """Raises a Problem (404) where the account's data key is gone."""
        opened = await self._opened([row], with_secret=with_secret)
        if not opened:
            raise problems.not_found()
        return opened[0]

    async def _opened(self, rows: list[WebhookRow], *, with_secret: bool = False) -> list[bytes]:
        keys = await self._services.keyring.get({row.account for row in rows})
        found = [self._json(row, keys[row.account], with_secret=with_secret) for row in rows if row.account in keys]
        return [body for body in found if body is not None]

    def _json(self, row: WebhookRow, data_key: bytes, *, with_secret: bool) -> bytes | None:
        def at(field: str) -> bytes:
            return place("webhook", row.endpoint, field)

        try:
            url = unseal(data_key, row.url, at("url")).decode()
            description = unseal(data_key, row.description, at("description")).decode() if row.description else None
        except Unsealable:
            return None
        signer = Signer.of(self._services.keyset, row.endpoint, row.key_version)
        said = {
            "id": row.endpoint,
            "url": url,
            "events": row.events or [*TYPES],
            "description": description,
            "state": "disabled" if row.disabled else "active",
            "disabledBecause": row.disabled,
            "publicKey": signer.public_key,
            "createdAt": stamp(row.created_at),
        }
        return orjson.dumps(said | ({"secret": signer.secret} if with_secret else {}))


def webhook_id(request: Request) -> str:
    """The endpoint that the path names; what can't be an id is not there."""
    found: str = request.path_params["webhook_id"]
    if not WEBHOOK_ID.fullmatch(found):
        raise problems.not_found()
    return found


async def row_of(services: Services, caller: Caller, endpoint: str) -> WebhookRow:
    """Raises a Problem (404)."""
    row = await webhooks.by_id(services.pool, caller.owner, endpoint)
    if row is None:
        raise problems.not_found()
    return row


async def enabled(services: Services, caller: Caller, endpoint: str) -> WebhookRow:
    """Raises a Problem: 404, or 409 where it is disabled."""
    row = await row_of(services, caller, endpoint)
    if row.disabled:
        raise Problem("webhook_disabled", "This endpoint is disabled: enable it first.")
    return row
