"""Plans, accounts, API keys, and an account's users with their attachments, and its webhooks: who may do what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, assert_never

from domain import attachments, users, webhooks
from domain.attachments import AttachmentCommand, AttachmentEvent
from domain.mailbox_state import WITHIN
from domain.plans import LARGEST_COUNT, LONGEST_LIFETIME_MINUTES, Limits
from domain.scopes import unknown_among
from domain.users import UserCommand, UserEvent
from domain.webhooks import WebhookCommand, WebhookEvent

#: Plans are decided in one place, under this key.
PLANS_KEY = "plans"


@dataclass(frozen=True, slots=True)
class DefinePlan:
    name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class CreateAccount:
    account: str
    plan: str


@dataclass(frozen=True, slots=True)
class AssignPlan:
    account: str
    plan: str


@dataclass(frozen=True, slots=True)
class IssueApiKey:
    """`hash` is the SHA-256 of the whole key, in hex; the key itself is shown once and kept nowhere."""

    account: str
    key: str
    prefix: str
    hash: str
    scopes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RevokeApiKey:
    account: str
    key: str


AccountCommand = (
    DefinePlan
    | CreateAccount
    | AssignPlan
    | IssueApiKey
    | RevokeApiKey
    | UserCommand
    | AttachmentCommand
    | WebhookCommand
)


@dataclass(frozen=True, slots=True)
class PlanDefined:
    name: str
    limits: Limits


PlanFault = Literal["beyond_longest_lifetime", "not_positive", "default_beyond_longest", "too_large"]


@dataclass(frozen=True, slots=True)
class PlanRefused:
    name: str
    reason: PlanFault


@dataclass(frozen=True, slots=True)
class AccountCreated:
    account: str
    plan: str


@dataclass(frozen=True, slots=True)
class PlanAssigned:
    account: str
    plan: str


@dataclass(frozen=True, slots=True)
class ApiKeyIssued:
    account: str
    key: str
    prefix: str
    hash: str
    scopes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ApiKeyRevoked:
    account: str
    key: str


@dataclass(frozen=True, slots=True)
class AccountCommandRefused:
    command: Literal["CreateAccount", "AssignPlan", "IssueApiKey", "RevokeApiKey"]
    account: str
    reason: Literal["unknown_account", "already", "unknown_key", "unknown_scope"]


AccountEvent = (
    PlanDefined
    | PlanRefused
    | AccountCreated
    | PlanAssigned
    | ApiKeyIssued
    | ApiKeyRevoked
    | AccountCommandRefused
    | UserEvent
    | AttachmentEvent
    | WebhookEvent
)


@dataclass(frozen=True, slots=True)
class Account:
    plan: str
    keys: list[str] = field(default_factory=list)


Document = Account | users.Document | attachments.Document | webhooks.Document
Key = tuple[str, str]
Documents = Mapping[Key, Document | None]


def needs(command: AccountCommand, key: str) -> list[Key]:
    """The documents a decision on this command reads; `key` is the key of its record."""
    if isinstance(command, DefinePlan):
        return []
    if isinstance(command, AttachmentCommand):
        return [("account", key), *attachments.needs(command)]
    if isinstance(command, WebhookCommand):
        return [("account", key), *webhooks.needs(command)]
    return [("account", key), *(users.needs(command) if isinstance(command, UserCommand) else [])]


def decide(  # noqa: PLR0911 - one return for each part of the context
    documents: Documents, command: AccountCommand, now: datetime
) -> list[AccountEvent]:
    """What follows from this command, as things stand."""
    if isinstance(command, DefinePlan):
        reason = _fault_of(command.limits)
        return [PlanRefused(command.name, reason) if reason else PlanDefined(command.name, command.limits)]
    found = documents.get(("account", command.account))
    account = found if isinstance(found, Account) else None
    if isinstance(command, UserCommand):
        unknown = users.UserRefused(command.account, command.user, "unknown_account")
        return [users.decide(documents, command) if account else unknown]
    if isinstance(command, AttachmentCommand):
        if account is None:
            return [attachments.refused(command, "unknown_account")]
        return [*attachments.decide(documents, command, now)]
    if isinstance(command, WebhookCommand):
        unheard = webhooks.refused_for_unknown_account(command)
        return [*(webhooks.decide(documents, command, now) if account else unheard)]
    if isinstance(command, CreateAccount):
        known = AccountCommandRefused("CreateAccount", command.account, "already")
        return [known if account else AccountCreated(command.account, command.plan)]
    return [_change(account, command)]


def _change(account: Account | None, command: AssignPlan | IssueApiKey | RevokeApiKey) -> AccountEvent:
    name: Literal["AssignPlan", "IssueApiKey", "RevokeApiKey"]
    event: AccountEvent
    match command:
        case AssignPlan():
            name, event = "AssignPlan", PlanAssigned(command.account, command.plan)
        case IssueApiKey():
            name = "IssueApiKey"
            event = ApiKeyIssued(command.account, command.key, command.prefix, command.hash, command.scopes)
            if account and command.key in account.keys:
                return AccountCommandRefused(name, command.account, "already")
            if account and unknown_among(command.scopes):
                return AccountCommandRefused(name, command.account, "unknown_scope")
        case RevokeApiKey():
            name, event = "RevokeApiKey", ApiKeyRevoked(command.account, command.key)
            if account and command.key not in account.keys:
                return AccountCommandRefused(name, command.account, "unknown_key")
        case _:
            assert_never(command)
    return event if account else AccountCommandRefused(name, command.account, "unknown_account")


def touches(event: AccountEvent) -> list[Key]:
    """The documents that folding this event changes."""
    if isinstance(event, WebhookEvent):
        return webhooks.touches(event)
    match event:
        case AccountCreated() | PlanAssigned() | ApiKeyIssued() | ApiKeyRevoked():
            return [("account", event.account)]
        case users.UserCreated() | users.UserDeleted() | users.UserRefused():
            return users.touches(event)
        case attachments.AttachmentStored() | attachments.AttachmentUsed() | attachments.AttachmentDeleted():
            return attachments.touches(event)
        case _:
            return []


def evolve(  # noqa: PLR0911 - one return for each part of the context
    documents: Documents, event: AccountEvent
) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it."""
    if isinstance(event, WebhookEvent):
        return {**webhooks.evolve(documents, event)}
    match event:
        case AccountCreated():
            return {("account", event.account): Account(event.plan)}
        case PlanAssigned() | ApiKeyIssued() | ApiKeyRevoked():
            account = documents.get(("account", event.account))
            return {("account", event.account): _changed(account, event)} if isinstance(account, Account) else {}
        case users.UserDeleted():
            return {**users.evolve(event), (WITHIN, event.user): None}
        case users.UserCreated() | users.UserRefused():
            return {**users.evolve(event)}
        case (
            attachments.AttachmentStored()
            | attachments.AttachmentUsed()
            | attachments.AttachmentDeleted()
            | attachments.AttachmentRefused()
        ):
            return {**attachments.evolve(documents, event)}
        case PlanDefined() | PlanRefused() | AccountCommandRefused():
            return {}
        case _:
            assert_never(event)


def _changed(account: Account, event: PlanAssigned | ApiKeyIssued | ApiKeyRevoked) -> Account:
    match event:
        case PlanAssigned():
            return Account(event.plan, account.keys)
        case ApiKeyIssued():
            return Account(account.plan, [*account.keys, event.key])
        case ApiKeyRevoked():
            return Account(account.plan, [key for key in account.keys if key != event.key])


def _fault_of(limits: Limits) -> PlanFault | None:
    if min(limits.default_ttl_minutes, limits.longest_ttl_minutes, limits.live_mailboxes, limits.live_messages) < 1:
        return "not_positive"
    if limits.longest_ttl_minutes > LONGEST_LIFETIME_MINUTES:
        return "beyond_longest_lifetime"
    if max(limits.live_mailboxes, limits.live_messages) > LARGEST_COUNT:
        return "too_large"
    return "default_beyond_longest" if limits.default_ttl_minutes > limits.longest_ttl_minutes else None
