"""What an API key may be narrowed to. A key without any scope may do whatever its account may."""

from collections.abc import Iterable
from typing import Final, Literal, get_args

KeyScope = Literal[
    "mailboxes:read",
    "mailboxes:write",
    "events:read",
    "users:read",
    "users:write",
    "connections:read",
    "connections:write",
    "sends:read",
    "sends:write",
    "webhooks:read",
    "webhooks:write",
]
#: Every scope there is. To write includes to read.
SCOPES: Final[tuple[KeyScope, ...]] = get_args(KeyScope)


def unknown_among(scopes: Iterable[str]) -> list[str]:
    """Those that are no scopes of ours."""
    return [scope for scope in scopes if scope not in SCOPES]


def allows(granted: list[str], wanted: KeyScope) -> bool:
    """Whether a key with these scopes may do what takes the wanted one."""
    return not granted or wanted in granted or wanted.replace(":read", ":write") in granted
