"""Sending a browser to a provider, so that it can be told when it comes back; and what is remembered on the way."""

import logging
import secrets
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from domain.connection_events import Provider
from gateways.http import problems
from gateways.http.connect.parts import Connecting
from gateways.http.connect.rendering import redirect
from gateways.http.connect.wishes import Wish
from gateways.http.services import Services
from gateways.providers.connector import Consent
from gateways.stores.keyset_file import KeysetError
from gateways.stores.sealing import Unsealable, place, unseal
from projections.connections import ConnectionRow

log = logging.getLogger(__name__)

Kept = TypeVar("Kept")

NO_CONSENT: Final = (
    "An `smtp` mailbox is renewed here only where it is a connection by XOAUTH2, named as `connectionId`; otherwise by "
    "`POST /v1/connections/smtp`."
)
WISH: Final = TypeAdapter(Wish)
CONSENT: Final = TypeAdapter(Consent)


async def issue_ticket(connecting: Connecting, wish: Wish) -> str:
    """A ticket for this wish, as a browser carries it."""
    said: dict[str, Any] = WISH.dump_python(wish, mode="json")
    return await connecting.tickets.issue(account=wish.owner, user=wish.user, provider=wish.provider, said=said)


async def use_ticket(connecting: Connecting, ticket: str, provider: Provider | None) -> Wish | None:
    """What the ticket is for, once; None where it is none, or one for another address of ours."""
    found = await connecting.tickets.use(ticket)
    return _remembered(WISH, found.said) if found is not None and found.provider == provider else None


async def to_provider(connecting: Connecting, request: Request, wish: Wish, provider: Provider) -> Response:
    """Begins a consent in this browser and sends it there. Raises ConnectFailed where there is no client."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    consent = Consent(state, nonce, verifier, connecting.callback(provider), wish.login_hint)
    url = connecting.connectors.by_provider[provider].consent_url(consent, wish.servers)
    said = {"consent": CONSENT.dump_python(consent, mode="json"), "wish": WISH.dump_python(wish, mode="json")}
    browser = await connecting.consents.begin(state, provider=provider, said=said)
    response = redirect(url)
    connecting.cookies.bind(request, response, provider, state, browser)
    return response


async def take(connecting: Connecting, state: str, browser: str, provider: Provider) -> tuple[Consent, Wish] | None:
    """The consent that this browser comes back from, once."""
    said = await connecting.consents.take(state, browser=browser, provider=provider)
    if said is None:
        return None
    consent, wish = _remembered(CONSENT, said.get("consent")), _remembered(WISH, said.get("wish"))
    return (consent, wish) if consent and wish else None


def _remembered(adapter: TypeAdapter[Kept], said: object) -> Kept | None:
    """None where another version of us wrote it: whoever comes with it begins again. What it said is in no error."""
    try:
        return adapter.validate_python(said)
    except ValidationError:
        log.warning("a ticket or consent was written by another version, and is passed over")
        return None


async def with_servers(services: Services, connecting: Connecting, wish: Wish, row: ConnectionRow | None) -> Wish:
    """The wish to renew an `smtp` mailbox, with its servers out of the vault. Raises a Problem (400)."""
    try:
        held = await connecting.vault.get(row.connection) if row else None
    except (KeysetError, Unsealable):
        held = None
    keys = await services.keyring.get([wish.user])
    if row is None or held is None or held.secrets.servers is None or held.secrets.servers.oauth is None:
        raise problems.invalid("/query/connectionId", NO_CONSENT)
    if wish.user not in keys:
        raise problems.not_found()
    account = unseal(keys[wish.user], row.account, place("connection", row.connection, "account")).decode()
    return replace(wish, connection=row.connection, address=account, servers=held.secrets.servers)
