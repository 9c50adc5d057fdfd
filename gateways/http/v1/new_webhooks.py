"""Registering an endpoint: what is asked for is checked as a whole, its URL sealed, and its secret shown once.

An account's first endpoint makes the data key that all of them are sealed under.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request

from domain.webhook_words import TYPES
from domain.webhooks import MOST_ENDPOINTS, AddWebhook, WebhookAdded, WebhookRefused
from gateways.http import parameters, problems
from gateways.http.asking import read_back, settled
from gateways.http.json_bodies import json_object
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1.bodies import Faults, Members
from gateways.http.who import Caller
from gateways.log.decisions import Asked
from gateways.providers.egress import Egress
from gateways.providers.hosts import HostNotAllowed
from gateways.stores.sealing import place, seal
from gateways.stores.webhook_endpoints import account_key
from projections import webhooks
from projections.webhooks import WebhookRow
from schemas import topics
from schemas.ids import new_id

ROUTE: Final = "POST /v1/webhooks"
URL_CHARACTERS: Final = 2048
DESCRIPTION_CHARACTERS: Final = 256
KNOWN: Final = ", ".join(f"`{name}`" for name in TYPES)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request says of the endpoint to be; `events` is empty where it is all, `description` where there is none."""

    url: str
    events: list[str]
    description: str
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Made:
    """The endpoint there is now; `replayed` where an idempotency key stood for it already."""

    row: WebhookRow
    log_position: str
    replayed: bool


async def make_webhook(services: Services, request: Request, caller: Caller) -> Made:
    """Makes the endpoint that the request's body tells of. Raises a Problem, and what Decisions.ask raises."""
    wanted = await _wanted(request, services.egress)
    endpoint, data_key = new_id("whk"), await account_key(services.keyring, caller.owner)
    key, said = wanted.idempotency_key, orjson.dumps([wanted.url, wanted.events, wanted.description]).decode()
    digest = services.keyset.digest
    command = AddWebhook(
        caller.owner,
        endpoint,
        seal(data_key, wanted.url.encode(), place("webhook", endpoint, "url")),
        wanted.events,
        seal(data_key, wanted.description.encode(), place("webhook", endpoint, "description"))
        if wanted.description
        else None,
        digest("idempotency", caller.owner, ROUTE, key) if key else None,
        digest("idempotency", "request", caller.owner, ROUTE, said) if key else None,
    )
    asked = Asked(topics.ACCOUNT_COMMANDS.name, caller.owner, endpoint, command, webhooks.PROJECTION.name)
    decision = await settled(services.account_decisions, request, asked)
    if not isinstance(decision.event, WebhookAdded):
        endpoint = _made_before(decision.event)
    row = await read_back(webhooks.by_id(services.pool, caller.owner, endpoint))
    if row is None:
        raise Problem("gone", "The endpoint that this made has been removed since.")
    return Made(row, decision.log_position, replayed=endpoint != command.endpoint)


def _made_before(event: Any) -> str:
    """The endpoint that the idempotency key stands for. Raises a Problem where nothing was made."""
    match event:
        case WebhookRefused(reason="repeated", of=str(earlier)):
            return earlier
        case WebhookRefused(reason="too_many_endpoints"):
            raise Problem("too_many_webhooks", f"An account has at most {MOST_ENDPOINTS} endpoints: remove one first.")
        case WebhookRefused(reason="idempotency_key_reused"):
            raise Problem("idempotency_key_reused", "This idempotency key already stands for another request.")
        case _:
            raise problems.unavailable()


async def _wanted(request: Request, egress: Egress) -> Wanted:
    """Raises a Problem (400) that tells all that is wrong."""
    faults, body = Faults(), await json_object(request)
    members = Members(body, ("url", "events", "description"), faults)
    wanted = Wanted(
        members.text("url", most=URL_CHARACTERS),
        _events(body.get("events"), faults),
        members.text("description", most=DESCRIPTION_CHARACTERS, required=False),
        faults.tried(lambda: parameters.idempotency_key(request)),
    )
    if wanted.url:
        check_url(egress, wanted.url, "/url", faults)
    faults.refuse()
    return wanted


def check_url(egress: Egress, url: str, pointer: str, faults: Faults) -> None:
    """Adds a fault where this is no URL that we would tell anything to, as far as it can be seen without looking it up."""
    try:
        egress.checked_url(url)
    except HostNotAllowed as refused:
        faults.add(pointer, refused.sentence)


def _events(said: Any, faults: Faults) -> list[str]:
    """Without repetitions, in the order of our own list."""
    if said is None:
        return []
    if not isinstance(said, list) or not said:
        faults.add("/events", f"`events` has to be a list of at least one of {KNOWN}; leave it out for all of them.")
        return []
    for number, name in enumerate(said):
        if name not in TYPES:
            faults.add(f"/events/{number}", f"There is no such event: {KNOWN}.")
    return [name for name in TYPES if name in said]
