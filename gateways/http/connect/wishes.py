"""What a product has asked for on behalf of a user: it travels with the ticket and then with the consent."""

from dataclasses import dataclass, field
from typing import get_args

from domain.connection_events import Provider
from domain.tokens import OwnServers
from gateways.http import problems
from gateways.http.connect.parts import Connecting
from gateways.http.problems import Problem

PROVIDERS = get_args(Provider)


@dataclass(frozen=True, slots=True)
class Wish:
    """A mailbox for this user of this account. `provider` is None where the user chooses, on our own page.

    `return_url` is where the browser goes in the end, None for our page; `on_page`: it began there and ends there.
    `address` and `servers` are those of an `smtp` mailbox; `connection` is one to be renewed.
    """

    owner: str
    user: str
    provider: Provider | None = None
    return_url: str | None = None
    connection: str | None = None
    login_hint: str | None = None
    on_page: bool = False
    address: str | None = None
    servers: OwnServers | None = field(default=None, repr=False)


def provider_named(name: str) -> Provider:
    """Raises a Problem (404) for a provider that we do not know."""
    if name not in PROVIDERS:
        raise problems.not_found()
    found: Provider = name  # type: ignore[assignment]  # it is one of them
    return found


def check_set_up(connecting: Connecting, provider: Provider) -> None:
    """Raises a Problem (503) where this installation has no client there."""
    if not connecting.connectors.by_provider[provider].ready:
        raise not_set_up(provider)


def not_set_up(provider: Provider) -> Problem:
    variable = {"gmail": "POSTLEDGER_GOOGLE_CLIENT_ID", "outlook": "POSTLEDGER_MICROSOFT_CLIENT_ID"}.get(provider, "")
    return Problem(
        "provider_not_set_up",
        f"This installation has no client at `{provider}`: its operator has to set `{variable}`.",
        {"Retry-After": "300"},
    )
