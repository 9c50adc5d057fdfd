"""The shapes of users and connections, as `/openapi.json` shows them.

They document. What is sent is made from rows directly, and the tests hold the two together.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from domain.connection_events import Provider

USER = "usr_01jnqrstvwxyz0123456789abc"
CONNECTION = "con_01jnqrstvwxyz0123456789abc"
EMAIL = "ada@example.org"
AT = "2026-03-13T15:30:00.000Z"
A_USER = {"id": USER, "email": EMAIL, "displayName": "Ada Lovelace", "externalId": "4711", "createdAt": AT}
AN_ERROR = {
    "code": "unreachable",
    "message": "The provider could not be reached when the token was to be refreshed. It is tried again by itself.",
    "at": AT,
}
A_CONNECTION = {
    "id": CONNECTION,
    "userId": USER,
    "provider": "outlook",
    "account": EMAIL,
    "scopes": ["Mail.ReadWrite", "Mail.Send", "offline_access"],
    "missingScopes": [],
    "state": "active",
    "tokenExpiresAt": AT,
    "connectedAt": AT,
    "lastUsedAt": None,
    "lastError": None,
}
State = Literal["active", "reauth_required", "revoked"]


def shown(example: dict[str, Any], *, closed: bool = False) -> ConfigDict:
    """A shape in camelCase with an example; `closed` where other members are refused."""
    extra: Literal["forbid", "ignore"] = "forbid" if closed else "ignore"
    return ConfigDict(alias_generator=to_camel, json_schema_extra={"example": example}, extra=extra)


class NewUser(BaseModel):
    """Whom mailboxes are to be connected for. E-mail address and external id are one user's alone in an account."""

    model_config = shown({name: A_USER[name] for name in ("email", "displayName", "externalId")}, closed=True)

    email: str = Field(description="Compared without regard to case.", min_length=3, max_length=254)
    display_name: str = Field(min_length=1, max_length=256)
    external_id: str | None = Field(
        default=None, description="The user's id in your own system.", min_length=1, max_length=255
    )


class User(BaseModel):
    """A user of the account."""

    model_config = shown(A_USER)

    id: str
    email: str
    display_name: str
    external_id: str | None
    created_at: datetime


class Users(BaseModel):
    """A page of users, the newest first; `nextCursor` is null on the last one."""

    model_config = shown({"items": [A_USER], "nextCursor": None})

    items: list[User]
    next_cursor: str | None


class LastError(BaseModel):
    """What went wrong last, and what is to be done; it goes away when a refresh succeeds."""

    model_config = shown(AN_ERROR)

    code: str = Field(description="Stable: what a program should look at.")
    message: str
    at: datetime


class Connection(BaseModel):
    """A user's mailbox at a provider.

    `reauth_required`: only the user can mend it, by connecting the mailbox again. `revoked`: it is over.
    """

    model_config = shown(A_CONNECTION)

    id: str
    user_id: str
    provider: Provider
    account: str = Field(description="The mailbox's address.")
    scopes: list[str] = Field(description="What was granted, as the provider spells it.")
    missing_scopes: list[str] = Field(description="What was asked for and not granted.")
    state: State
    token_expires_at: datetime | None = Field(description="Null for what does not expire by itself.")
    connected_at: datetime
    last_used_at: datetime | None
    last_error: LastError | None


class Connections(BaseModel):
    """A page of connections, the newest first; `nextCursor` is null on the last one."""

    model_config = shown({"items": [A_CONNECTION], "nextCursor": None})

    items: list[Connection]
    next_cursor: str | None
