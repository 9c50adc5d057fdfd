"""A product's users, whose mailboxes may be connected. E-mail address and external id are one user's alone in an account."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from domain.fields import Digest, Sealed


@dataclass(frozen=True, slots=True)
class CreateUser:
    account: str
    user: str
    email: Sealed
    email_digest: Digest
    display_name: Sealed | None = None
    external_id: Sealed | None = None
    external_id_digest: Digest | None = None
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class DeleteUser:
    """Deletes a user. The digests are a copy from the read model: they never change, and name what becomes free again."""

    account: str
    user: str
    by: str
    email_digest: Digest
    external_id_digest: Digest | None = None


UserCommand = CreateUser | DeleteUser


@dataclass(frozen=True, slots=True)
class UserCreated:
    account: str
    user: str
    email: Sealed
    email_digest: Digest
    display_name: Sealed | None = None
    external_id: Sealed | None = None
    external_id_digest: Digest | None = None
    idempotency_key: Digest | None = None
    request: Digest | None = None


@dataclass(frozen=True, slots=True)
class UserDeleted:
    account: str
    user: str
    by: str
    email_digest: Digest
    external_id_digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class UserRefused:
    """Nothing changed. `of` is the user who has the address or external id, or was made with the idempotency key."""

    account: str
    user: str
    reason: Literal[
        "unknown_account", "unknown_user", "email_taken", "external_id_taken", "repeated", "idempotency_key_reused"
    ]
    of: str | None = None


UserEvent = UserCreated | UserDeleted | UserRefused


@dataclass(frozen=True, slots=True)
class User:
    account: str
    email_digest: Digest
    external_id_digest: Digest | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The user who has an address or an external id."""

    user: str


@dataclass(frozen=True, slots=True)
class Made:
    """The user that an idempotency key stands for, and the digest of the request that made it."""

    user: str
    request: Digest | None


Document = User | Taken | Made
Key = tuple[str, str]


def needs(command: UserCommand) -> list[Key]:
    """The documents of users that a decision on this command reads."""
    keys = _keys(command)
    if isinstance(command, CreateUser) and command.idempotency_key:
        keys.append(("made", f"{command.account}/{command.idempotency_key}"))
    return keys


def decide(documents: Mapping[Key, object | None], command: UserCommand) -> UserEvent:
    """What follows from this command; whether there is such an account has been looked at."""
    if isinstance(command, DeleteUser):
        user = documents.get(("user", command.user))
        if not isinstance(user, User) or user != User(
            command.account, command.email_digest, command.external_id_digest
        ):
            return UserRefused(command.account, command.user, "unknown_user")
        return UserDeleted(command.account, command.user, command.by, user.email_digest, user.external_id_digest)
    return _refused(documents, command) or UserCreated(
        command.account,
        command.user,
        command.email,
        command.email_digest,
        command.display_name,
        command.external_id,
        command.external_id_digest,
        command.idempotency_key,
        command.request if command.idempotency_key else None,
    )


def _refused(documents: Mapping[Key, object | None], command: CreateUser) -> UserRefused | None:
    made = documents.get(("made", f"{command.account}/{command.idempotency_key}")) if command.idempotency_key else None
    if isinstance(made, Made):
        reason: Literal["repeated", "idempotency_key_reused"] = (
            "repeated" if made.request == command.request else "idempotency_key_reused"
        )
        return UserRefused(command.account, command.user, reason, made.user)
    if isinstance(documents.get(("user", command.user)), User):
        return UserRefused(command.account, command.user, "repeated", command.user)
    by_email = documents.get(("email", f"{command.account}/{command.email_digest}"))
    if isinstance(by_email, Taken):
        return UserRefused(command.account, command.user, "email_taken", by_email.user)
    if command.external_id_digest:
        by_external_id = documents.get(("external_id", f"{command.account}/{command.external_id_digest}"))
        if isinstance(by_external_id, Taken):
            return UserRefused(command.account, command.user, "external_id_taken", by_external_id.user)
    return None


def touches(event: UserEvent) -> list[Key]:
    """The documents that folding this event changes."""
    if isinstance(event, UserRefused):
        return []
    keys = _keys(event)
    if isinstance(event, UserCreated) and event.idempotency_key:
        keys.append(("made", f"{event.account}/{event.idempotency_key}"))
    return keys


def evolve(event: UserEvent) -> dict[Key, Document | None]:
    """The documents this event changes, as they are after it."""
    if isinstance(event, UserDeleted):
        return dict.fromkeys(_keys(event))
    if isinstance(event, UserRefused):
        return {}
    changed: dict[Key, Document | None] = dict.fromkeys(_keys(event), Taken(event.user))
    changed["user", event.user] = User(event.account, event.email_digest, event.external_id_digest)
    if event.idempotency_key:
        changed["made", f"{event.account}/{event.idempotency_key}"] = Made(event.user, event.request)
    return changed


def _keys(said: UserCommand | UserCreated | UserDeleted) -> list[Key]:
    """The user, and what is theirs alone in the account."""
    keys = [("user", said.user), ("email", f"{said.account}/{said.email_digest}")]
    if said.external_id_digest:
        keys.append(("external_id", f"{said.account}/{said.external_id_digest}"))
    return keys
