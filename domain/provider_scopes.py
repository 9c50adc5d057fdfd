"""What a provider's scopes are good for: which allow to send, and which of those asked for were not granted.

Google: developers.google.com/identity/protocols/oauth2/scopes; Microsoft: learn.microsoft.com/graph/permissions-reference.
"""

from collections.abc import Iterable
from typing import Final

from domain.connection_events import Provider

#: What is asked for where nobody says otherwise, the least first. `openid` and `email` say whose mailbox it is.
DEFAULT_SCOPES: Final[dict[Provider, tuple[str, ...]]] = {
    "gmail": (
        "https://www.googleapis.com/auth/gmail.compose",
        "https://www.googleapis.com/auth/gmail.readonly",
        "openid",
        "email",
    ),
    "outlook": ("Mail.ReadWrite", "Mail.Send", "offline_access", "openid", "email", "profile"),
    "smtp": (),
}
#: A connection without any of these can't do what it is for.
SENDS: Final[dict[Provider, frozenset[str]]] = {
    "gmail": frozenset(
        {
            "https://mail.google.com/",
            "https://www.googleapis.com/auth/gmail.modify",
            "https://www.googleapis.com/auth/gmail.compose",
            "https://www.googleapis.com/auth/gmail.send",
        }
    ),
    "outlook": frozenset({"mail.send"}),
    "smtp": frozenset(),
}
#: Said of who somebody is, or of how long a grant lasts: nothing that a mailbox can miss.
ABOUT_THE_USER: Final = frozenset({"openid", "email", "profile", "offline_access", "user.read"})
GOOGLE_SPELLS: Final = {
    "https://www.googleapis.com/auth/userinfo.email": "email",
    "https://www.googleapis.com/auth/userinfo.profile": "profile",
}
GRAPH: Final = "https://graph.microsoft.com/"


def may_send(provider: Provider, granted: Iterable[str]) -> bool:
    """Whether these scopes allow to send; those of `smtp` are tried by logging in, and judged by nobody."""
    wanted = SENDS[provider]
    return not wanted or bool(wanted & _spelled_alike(provider, granted))


def missing(provider: Provider, asked: Iterable[str], granted: Iterable[str]) -> list[str]:
    """Of the scopes that were asked for, in their order, those that a user did not grant."""
    has = _spelled_alike(provider, granted)
    return [scope for scope in asked if _alike(provider, scope) not in has | ABOUT_THE_USER]


def _spelled_alike(provider: Provider, scopes: Iterable[str]) -> set[str]:
    return {_alike(provider, scope) for scope in scopes}


def _alike(provider: Provider, scope: str) -> str:
    """Microsoft gives back `https://graph.microsoft.com/Mail.Send` for `Mail.Send`, and Google an address for `email`."""
    if provider == "outlook":
        return scope.lower().removeprefix(GRAPH)
    return GOOGLE_SPELLS.get(scope, scope)
