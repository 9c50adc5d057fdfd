"""What Gmail's refusals mean for a mail that is to be sent: one table of statuses and reasons.

Reasons and texts: developers.google.com/workspace/gmail/api/guides/handle-errors and cloud.google.com/apis/design/errors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from domain.delivery import Deferred, InDoubt, NotProven, Refused, TokenRefused
from gateways.providers.calls import Reply
from gateways.providers.sending import readable, sensible

#: Said by whatever stood in between and gave up waiting, so what it waited for may have happened.
GAVE_UP: Final = frozenset({408, 499})

Definite = Deferred | Refused | TokenRefused


@dataclass(frozen=True, slots=True)
class Row:
    """A status, a reason that the answer gives ("" is any), a text in its message ("" is any), and what it means."""

    status: int
    reason: str
    means: Definite
    text: str = ""


_RATE: Final = Deferred("rate_limited", counted=False)
_BUSY: Final = Deferred("mailbox_busy", counted=False)
_DAY: Final = Deferred("daily_quota", counted=False)
_BROKEN: Final = Deferred("client_broken", counted=False)

#: The first row that fits counts.
TABLE: Final = (
    Row(400, "failedPrecondition", Refused("mailbox_disabled"), "mail service not enabled"),
    Row(400, "FAILED_PRECONDITION", Refused("mailbox_disabled"), "mail service not enabled"),
    Row(400, "failedPrecondition", Refused("not_allowed")),
    Row(400, "FAILED_PRECONDITION", Refused("not_allowed")),
    Row(400, "keyInvalid", _BROKEN),
    Row(400, "API_KEY_INVALID", _BROKEN),
    Row(400, "", Refused("recipients_refused"), "recipient"),
    Row(400, "", Refused("recipients_refused"), "invalid to header"),
    Row(400, "", Refused("recipients_refused"), "invalid cc header"),
    Row(400, "", Refused("recipients_refused"), "invalid bcc header"),
    Row(400, "", Refused("message_too_large"), "payload size exceeds"),
    Row(400, "badRequest", Refused("message_refused")),
    Row(400, "invalidArgument", Refused("message_refused")),
    Row(400, "INVALID_ARGUMENT", Refused("message_refused")),
    Row(401, "", TokenRefused()),
    Row(403, "dailyLimitExceeded", _DAY),
    Row(403, "rateLimitExceeded", _RATE),
    Row(403, "userRateLimitExceeded", _RATE),
    Row(403, "quotaExceeded", _RATE),
    Row(403, "RESOURCE_EXHAUSTED", _RATE),
    # The operator's project has the API switched off: no user can do anything about it.
    Row(403, "accessNotConfigured", _BROKEN),
    Row(403, "SERVICE_DISABLED", _BROKEN),
    Row(403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT", Refused("scope_missing")),
    Row(403, "insufficientPermissions", Refused("scope_missing")),
    Row(403, "domainPolicy", Refused("not_allowed")),
    Row(403, "forbidden", Refused("not_allowed")),
    Row(403, "PERMISSION_DENIED", Refused("not_allowed")),
    Row(404, "", Refused("not_found")),
    Row(413, "", Refused("message_too_large")),
    # "User-rate limit exceeded.  Retry after 2026-… (Mail sending)": what a user may send in a day.
    Row(429, "", _DAY, "(mail sending)"),
    Row(429, "dailyLimitExceeded", _DAY),
    Row(429, "", _BUSY, "concurrent"),
    Row(429, "", _RATE),
)
OTHERWISE: Final = Deferred("server_error")

_UNTIL = re.compile(r"retry after (\d{4}-\d\d-\d\dT[\d:.]{5,20}(?:Z|[+-]\d\d:\d\d))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """Google's own error: its reasons, in all the places where it says them, and its message."""

    reasons: frozenset[str]
    text: str = field(repr=False)


def problem_in(reply: Reply) -> Problem | None:
    """The error that an answer tells of; None where it is not of Google's form, so that somebody else may have said it."""
    error = (reply.body or {}).get("error")
    if not isinstance(error, dict):
        return None
    of_each = [one for name in ("errors", "details") for one in _objects(error.get(name))]
    said = [error.get("status"), *(one.get("reason") for one in of_each)]
    text = error.get("message")
    return Problem(frozenset(one for one in said if isinstance(one, str)), text if isinstance(text, str) else "")


def meaning(reply: Reply, now: datetime | None = None) -> Definite:
    """What an answer without success means where it is certain that nothing went out."""
    problem = problem_in(reply)
    found = _row(reply.status, problem or Problem(frozenset(), ""))
    if problem is None and not isinstance(found, TokenRefused) and reply.status < 500 and reply.status != 429:
        found = Deferred("answer_unreadable")
    said = readable(problem.text) if problem is not None else None
    match found:
        case Deferred():
            return replace(found, said=said, retry_after=_wait(reply, problem, now))
        case Refused():
            return replace(found, said=said)
        case TokenRefused():
            return found


def meaning_of_sending(reply: Reply, now: datetime | None = None) -> Definite | InDoubt:
    """The same of the call that sends the mail: only a refusal in Google's own words shows that nothing went out."""
    problem = problem_in(reply)
    if reply.status >= 500 or reply.status in GAVE_UP:
        return InDoubt("server_error", readable(problem.text) if problem is not None else None)
    return InDoubt("answer_unreadable") if problem is None else meaning(reply, now)


def meaning_of_looking(reply: Reply) -> NotProven | TokenRefused:
    """The same of a call that looks for the mail."""
    match meaning(reply):
        case TokenRefused() as found:
            return found
        case Deferred("rate_limited" | "mailbox_busy" | "daily_quota", wait):
            return NotProven("rate_limited", wait)
        case Deferred(_, wait):
            return NotProven("server_error", wait)
        case Refused():
            return NotProven("not_allowed")


def _row(status: int, problem: Problem) -> Definite:
    text = problem.text.lower()
    for row in TABLE:
        if row.status == status and (not row.reason or row.reason in problem.reasons) and row.text in text:
            return row.means
    return OTHERWISE


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _wait(reply: Reply, problem: Problem | None, now: datetime | None) -> float | None:
    """Seconds, as the header says them, or the message by a moment."""
    seconds = reply.retry_after
    if seconds is None and problem is not None and (found := _UNTIL.search(problem.text)):
        try:
            seconds = max(0.0, (datetime.fromisoformat(found[1]) - (now or datetime.now(UTC))).total_seconds())
        except ValueError:
            return None
    return sensible(seconds)
