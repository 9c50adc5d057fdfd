"""What a token endpoint's answer means: tokens, or why there are none (RFC 6749, 5; Google's and Microsoft's additions).

`error` decides, and Microsoft's numbers (AADSTS…) before it; `error_description` is for people and means nothing here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from domain.connection_events import RefreshCode
from domain.tokens import NotRefreshed
from gateways.providers.calls import Answer, CallFailed

#: Characters of a token; Microsoft's are the longest, at a few thousand.
LONGEST_TOKEN: Final = 16 * 1024
#: Seconds that an access token is believed to live.
LONGEST_LIFE: Final = 366 * 24 * 3600
TOKEN: Final = re.compile(r"[\x21-\x7e]+")

#: The user has to consent again: the grant is over, or wants something of the user that only the user can give.
GRANT_IS_OVER: Final = frozenset({"invalid_grant", "interaction_required", "consent_required", "login_required"})
#: Our client there is refused, for everybody. Google names clients that were deleted or disabled.
CLIENT_IS_BROKEN: Final[dict[str, RefreshCode]] = {
    "invalid_client": "invalid_client",
    "deleted_client": "invalid_client",
    "disabled_client": "invalid_client",
    "unauthorized_client": "unauthorized_client",
}
#: learn.microsoft.com/entra/identity-platform/reference-error-codes
AADSTS: Final[dict[int, RefreshCode]] = {
    7000222: "client_secret_expired",
    7000215: "invalid_client",
    700016: "unauthorized_client",
}
AADSTS_NUMBER: Final = re.compile(r"\bAADSTS(\d{4,9})\b", re.ASCII)
ANOTHER_TIME: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint gave. `scopes` is None where it said nothing of them: all that were asked for."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: datetime | None
    scopes: list[str] | None
    id_token: str | None = field(repr=False)


def tokens(answer: Answer, asked_at: datetime) -> Tokens:
    """The tokens of an answer without an error. Raises CallFailed where there is no usable access token in it."""
    body = answer.json()
    access_token = _token(body.get("access_token"))
    if access_token is None or "error" in body:
        raise CallFailed("answer_unreadable")
    life = _life(body.get("expires_in"))
    return Tokens(
        access_token,
        _token(body.get("refresh_token")),
        asked_at + life if life is not None else None,
        _scopes(body.get("scope")),
        _token(body.get("id_token")),
    )


def why_not(answer: Answer) -> NotRefreshed | None:
    """Why there are no tokens in this answer; None where there should be."""
    body = answer.body or {}
    error = body.get("error")
    if answer.ok and error is None:
        return None
    if not isinstance(error, str):
        return NotRefreshed("transient", "answer_unreadable")
    for number in _aadsts(body):
        if number in AADSTS:
            return NotRefreshed("client_broken", AADSTS[number])
    if error in CLIENT_IS_BROKEN:
        return NotRefreshed("client_broken", CLIENT_IS_BROKEN[error])
    if error in GRANT_IS_OVER:
        return NotRefreshed("invalid_grant", "invalid_grant")
    return NotRefreshed("transient", "server_error" if error in ANOTHER_TIME else "refused")


def not_reached(failure: CallFailed) -> NotRefreshed:
    """A call without an answer, as the outcome of a refresh."""
    return NotRefreshed("transient", failure.code, failure.retry_after)


def _aadsts(body: Mapping[str, Any]) -> list[int]:
    listed = body.get("error_codes")
    numbers = [code for code in listed if type(code) is int] if isinstance(listed, list) else []
    written = body.get("error_description")
    return numbers + [int(found) for found in AADSTS_NUMBER.findall(written if isinstance(written, str) else "")]


def _token(value: object) -> str | None:
    """A token goes into headers and commands: what has spaces or line ends in it is none."""
    if isinstance(value, str) and len(value) <= LONGEST_TOKEN and TOKEN.fullmatch(value):
        return value
    return None


def _scopes(value: object) -> list[str] | None:
    return list(dict.fromkeys(value.split())) if isinstance(value, str) and value.strip() else None


def _life(value: object) -> timedelta | None:
    """Some servers write the seconds as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return timedelta(seconds=max(0, min(value, LONGEST_LIFE)))
