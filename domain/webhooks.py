"""An account's webhooks: where it is told of what happens, and the versions of the secrets that sign what it is told.

No secret is in the log: each is derived under an installation key from what it belongs to and its version. For a day after a
rotation the secret before signs as well (Standard Webhooks, "signature scheme"), so that a receiver can change over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal, assert_never

from domain.fields import Digest, Sealed
from domain.webhook_words import TYPES

#: Endpoints of one account, those that were disabled included.
MOST_ENDPOINTS: Final = 20
#: For how long the secret before signs as well, and how many earlier ones may do so at a time: each is a signature more in
#: every header.
OVERLAP: Final = timedelta(hours=24)
MOST_RETIRING: Final = 4

DisabledBecause = Literal["gone", "abandoned"]
RefusedBecause = Literal[
    "unknown_account",
    "unknown_endpoint",
    "unknown_event",
    "too_many_endpoints",
    "too_many_secrets",
    "already",
    "repeated",
    "idempotency_key_reused",
]


@dataclass(frozen=True, slots=True)
class RetiringSecret:
    """A secret that was rotated, and signs until then."""

    version: int
    until: datetime


@dataclass(frozen=True, slots=True)
class AddWebhook:
    account: str
    endpoint: str
    url: Sealed
    events: list[str] = field(default_factory=list)
    description: Sealed | None = None
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class RotateWebhook:
    account: str
    endpoint: str
    by: str


@dataclass(frozen=True, slots=True)
class RotateAccountSecret:
    account: str
    by: str


@dataclass(frozen=True, slots=True)
class DisableWebhook:
    account: str
    endpoint: str
    cause: DisabledBecause


@dataclass(frozen=True, slots=True)
class EnableWebhook:
    account: str
    endpoint: str
    by: str


@dataclass(frozen=True, slots=True)
class RemoveWebhook:
    account: str
    endpoint: str
    by: str


WebhookCommand = AddWebhook | RotateWebhook | RotateAccountSecret | DisableWebhook | EnableWebhook | RemoveWebhook


@dataclass(frozen=True, slots=True)
class WebhookAdded:
    """The account is told of these events at this URL from now on; of all there are where the list is empty."""

    account: str
    endpoint: str
    url: Sealed
    events: list[str]
    key_version: int
    description: Sealed | None = None
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class WebhookRotated:
    """The endpoint has another secret. Those of `retiring` sign as well, each until its time."""

    account: str
    endpoint: str
    key_version: int
    retiring: list[RetiringSecret]
    by: str


@dataclass(frozen=True, slots=True)
class AccountSecretRotated:
    """What goes to no registered endpoint is signed with another secret of the account; those of `retiring` sign as well."""

    account: str
    key_version: int
    retiring: list[RetiringSecret]
    by: str


@dataclass(frozen=True, slots=True)
class WebhookDisabled:
    """Nothing is sent there until somebody enables it. `gone`: it answered 410. `abandoned`: all attempts were in vain."""

    account: str
    endpoint: str
    cause: DisabledBecause


@dataclass(frozen=True, slots=True)
class WebhookEnabled:
    """What happens from now on is sent there again."""

    account: str
    endpoint: str
    by: str


@dataclass(frozen=True, slots=True)
class WebhookRemoved:
    """Nothing is sent there any more."""

    account: str
    endpoint: str
    by: str


@dataclass(frozen=True, slots=True)
class WebhookRefused:
    """Nothing changed. `of` is the endpoint that the idempotency key stands for."""

    command: Literal["AddWebhook", "RotateWebhook", "RotateAccountSecret", "EnableWebhook", "RemoveWebhook"]
    account: str
    endpoint: str
    reason: RefusedBecause
    of: str | None = None


WebhookEvent = (
    WebhookAdded
    | WebhookRotated
    | AccountSecretRotated
    | WebhookDisabled
    | WebhookEnabled
    | WebhookRemoved
    | WebhookRefused
)


@dataclass(frozen=True, slots=True)
class Secret:
    """Which version of a secret signs, and which earlier ones do so for a while."""

    version: int = 1
    retiring: list[RetiringSecret] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Endpoint:
    secret: Secret = field(default_factory=Secret)
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Webhooks:
    """An account's endpoints, and its own secret."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    own: Secret = field(default_factory=Secret)


@dataclass(frozen=True, slots=True)
class Hooked:
    """The endpoint that an idempotency key stands for, and the digest of the request that made it."""

    endpoint: str
    request: Digest | None


Document = Webhooks | Hooked
Key = tuple[str, str]


def needs(command: WebhookCommand) -> list[Key]:
    """The documents of webhooks that a decision on this command reads."""
    keys = [("webhooks", command.account)]
    if isinstance(command, AddWebhook) and command.idempotency_key:
        keys.append(("hooked", f"{command.account}/{command.idempotency_key}"))
    return keys


def refused_for_unknown_account(command: WebhookCommand) -> list[WebhookEvent]:
    """What follows where there is no such account; an effect hears of nothing."""
    return [] if isinstance(command, DisableWebhook) else [_refused(command, "unknown_account")]


def decide(documents: Mapping[Key, object | None], command: WebhookCommand, now: datetime) -> list[WebhookEvent]:
    """What follows from this command; whether there is such an account has been looked at."""
    held = _webhooks(documents, command.account)
    if isinstance(command, AddWebhook):
        return [_added(documents, held, command)]
    if isinstance(command, RotateAccountSecret):
        found = _rotated(held.own, now)
        if found is None:
            return [_refused(command, "too_many_secrets")]
        return [AccountSecretRotated(command.account, found.version, found.retiring, command.by)]
    endpoint = held.endpoints.get(command.endpoint)
    if isinstance(command, DisableWebhook):
        enabled = endpoint is not None and endpoint.enabled
        return [WebhookDisabled(command.account, command.endpoint, command.cause)] if enabled else []
    if endpoint is None:
        return [_refused(command, "unknown_endpoint")]
    return [_changed(endpoint, command, now)]


def _added(documents: Mapping[Key, object | None], held: Webhooks, command: AddWebhook) -> WebhookEvent:
    key = command.idempotency_key
    hooked = documents.get(("hooked", f"{command.account}/{key}")) if key else None
    if isinstance(hooked, Hooked):
        same = hooked.request == command.request
        return replace(_refused(command, "repeated" if same else "idempotency_key_reused"), of=hooked.endpoint)
    if command.endpoint in held.endpoints:
        return replace(_refused(command, "repeated"), of=command.endpoint)
    if not set(command.events) <= set(TYPES):
        return _refused(command, "unknown_event")
    if len(held.endpoints) >= MOST_ENDPOINTS:
        return _refused(command, "too_many_endpoints")
    return WebhookAdded(
        command.account,
        command.endpoint,
        command.url,
        command.events,
        Secret().version,
        command.description,
        command.idempotency_key,
        command.request if command.idempotency_key else None,
    )


def _changed(endpoint: Endpoint, command: RotateWebhook | EnableWebhook | RemoveWebhook, now: datetime) -> WebhookEvent:
    match command:
        case RotateWebhook():
            found = _rotated(endpoint.secret, now)
            if found is None:
                return _refused(command, "too_many_secrets")
            return WebhookRotated(command.account, command.endpoint, found.version, found.retiring, command.by)
        case EnableWebhook():
            if endpoint.enabled:
                return _refused(command, "already")
            return WebhookEnabled(command.account, command.endpoint, command.by)
        case RemoveWebhook():
            return WebhookRemoved(command.account, command.endpoint, command.by)
        case _:
            assert_never(command)


def _rotated(secret: Secret, now: datetime) -> Secret | None:
    """The next version, with those before it that still sign; None where they would be too many."""
    retiring = [one for one in secret.retiring if one.until > now]
    if len(retiring) >= MOST_RETIRING:
        return None
    return Secret(secret.version + 1, [*retiring, RetiringSecret(secret.version, now + OVERLAP)])


def _refused(
    command: AddWebhook | RotateWebhook | RotateAccountSecret | EnableWebhook | RemoveWebhook, reason: RefusedBecause
) -> WebhookRefused:
    match command:
        case AddWebhook(endpoint=endpoint):
            return WebhookRefused("AddWebhook", command.account, endpoint, reason)
        case RotateWebhook(endpoint=endpoint):
            return WebhookRefused("RotateWebhook", command.account, endpoint, reason)
        case RotateAccountSecret():
            return WebhookRefused("RotateAccountSecret", command.account, "", reason)
        case EnableWebhook(endpoint=endpoint):
            return WebhookRefused("EnableWebhook", command.account, endpoint, reason)
        case RemoveWebhook(endpoint=endpoint):
            return WebhookRefused("RemoveWebhook", command.account, endpoint, reason)
        case _:
            assert_never(command)


def touches(event: WebhookEvent) -> list[Key]:
    """The documents that folding this event changes."""
    if isinstance(event, WebhookRefused):
        return []
    keys = [("webhooks", event.account)]
    if isinstance(event, WebhookAdded) and event.idempotency_key:
        keys.append(("hooked", f"{event.account}/{event.idempotency_key}"))
    return keys


def evolve(documents: Mapping[Key, object | None], event: WebhookEvent) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it."""
    if isinstance(event, WebhookRefused):
        return {}
    held, key = _webhooks(documents, event.account), ("webhooks", event.account)
    if isinstance(event, AccountSecretRotated):
        return {key: replace(held, own=Secret(event.key_version, event.retiring))}
    endpoints = dict(held.endpoints)
    changed: dict[Key, Document | None] = {key: replace(held, endpoints=endpoints)}
    if isinstance(event, WebhookAdded):
        endpoints[event.endpoint] = Endpoint(Secret(event.key_version))
        if event.idempotency_key:
            changed["hooked", f"{event.account}/{event.idempotency_key}"] = Hooked(event.endpoint, event.request)
    elif (endpoint := endpoints.pop(event.endpoint, None)) and not isinstance(event, WebhookRemoved):
        if isinstance(event, WebhookRotated):
            endpoint = replace(endpoint, secret=Secret(event.key_version, event.retiring))
        else:
            endpoint = replace(endpoint, enabled=isinstance(event, WebhookEnabled))
        endpoints[event.endpoint] = endpoint
    return changed


def _webhooks(documents: Mapping[Key, object | None], account: str) -> Webhooks:
    found = documents.get(("webhooks", account))
    return found if isinstance(found, Webhooks) else Webhooks()
