"""Problem details (RFC 9457): the one form every error of the HTTP surface has.

Each code is stable and listed here with what it means; `/docs/problems` shows this list, and `type` points into it. `detail`
is a sentence for a person and never says anything of ours: no exception's text, no address, no token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
DOCS: Final = "/docs/problems"
#: Seconds after which what could not be answered now is worth another try.
RETRY_SECONDS: Final = 5
#: The half of the API that answers 400 to a request that is not valid; the other half's contract says 422.
CONNECTED_ACCOUNTS: Final = "/v1/"


@dataclass(frozen=True, slots=True)
class Kind:
    """One code: the status it comes with, its title, and what it means for whoever gets it."""

    status: int
    title: str
    meaning: str


KINDS: Final[Mapping[str, Kind]] = {
    "bad_request": Kind(400, "Bad request", "The request could not be understood."),
    "login_failed": Kind(
        400, "Login failed", "A mail server did not let us in, or could not be reached; `detail` names it."
    ),
    "host_not_allowed": Kind(
        400,
        "Host not allowed",
        "The server is not on the public internet, or not where mail servers are; `detail` names it.",
    ),
    "no_active_connection": Kind(
        400,
        "No active connection",
        "The user has no mailbox that could send this, or none of the one that was named: connect one, or name another.",
    ),
    "too_many_attachments": Kind(
        400, "Too many attachments", "A mail takes as many along as `/v1/limits` says; repetitions count once."
    ),
    "sns_message": Kind(400, "No message of Amazon SNS", "The body is not the JSON that Amazon SNS posts."),
    "sns_time": Kind(400, "Too old", "A message of Amazon SNS is taken within an hour, by the clock of this machine."),
    "credentials_missing": Kind(
        401, "Credentials are missing", "Send `Authorization: Bearer` with an API key or a mailbox's session token."
    ),
    "credentials_invalid": Kind(
        401, "Credentials are not valid", "The API key or session token is malformed, unknown or revoked."
    ),
    "forbidden": Kind(403, "Not allowed", "These credentials do not allow this."),
    "scope_missing": Kind(
        403,
        "Scope missing",
        "The API key was issued for other things; `scope` names what this takes. Issue another key.",
    ),
    "api_key_required": Kind(
        403, "An API key is required", "A session token is good for its own mailbox only; use an API key, or none."
    ),
    "foreign_origin": Kind(
        403, "Foreign origin", "API keys are secrets of servers: pages of other origins must not send them."
    ),
    "plan_limit_mailboxes": Kind(
        403,
        "The plan is full",
        "As many mailboxes are live as the plan allows (`limit`, `used`). Delete one, or wait for one to expire.",
    ),
    "sns_not_set_up": Kind(
        403, "Amazon SNS is not set up", "No topic may post here yet: set `POSTLEDGER_SNS_TOPICS` to the topic's ARN."
    ),
    "sns_topic": Kind(403, "Foreign topic", "The topic is not among those of `POSTLEDGER_SNS_TOPICS`."),
    "sns_certificate_url": Kind(
        403, "Foreign certificate", "`SigningCertURL` does not point to Amazon SNS in the topic's region."
    ),
    "sns_certificate": Kind(403, "Certificate not valid", "The certificate is not one of Amazon SNS."),
    "sns_subscribe_url": Kind(
        403, "Foreign confirmation", "`SubscribeURL` does not confirm this topic's subscription."
    ),
    "sns_signature": Kind(
        403, "Signature not valid", "The message was not signed by Amazon SNS, or has been changed since."
    ),
    "link_invalid": Kind(403, "Link not valid", "The link was not made by this installation, or was changed."),
    "link_expired": Kind(403, "Link expired", "The link's time is over; ask for the message again, which has another."),
    "not_found": Kind(404, "Not found", "There is no such thing, or it is not yours."),
    "method_not_allowed": Kind(405, "Method not allowed", "This path has other methods; `Allow` lists them."),
    "request_timeout": Kind(408, "Request timeout", "The request's body did not arrive in time."),
    "email_taken": Kind(
        409, "E-mail address taken", "A user of the account has this address, in any case; `userId` names them."
    ),
    "external_id_taken": Kind(
        409, "External id taken", "A user of the account has this `externalId`; `userId` names them."
    ),
    "too_many_connections": Kind(
        409, "Too many connections", "The user has as many connections as there may be; revoke one first."
    ),
    "too_many_webhooks": Kind(
        409, "Too many webhooks", "The account has as many endpoints as there may be; remove one first."
    ),
    "webhook_disabled": Kind(
        409, "The webhook is disabled", "It answered 410, or did not take a delivery in 75 hours; enable it first."
    ),
    "rotated_too_often": Kind(
        409, "Rotated too often", "As many earlier secrets as may do so still sign; each does for 24 hours."
    ),
    "idempotency_key_reused": Kind(
        409, "Idempotency key reused", "The key already stands for another request. Use a new key for a new request."
    ),
    "too_late": Kind(
        409, "Too late", "The mail is on its way, or has ended otherwise: it can't be moved or cancelled any more."
    ),
    "already_sent": Kind(409, "Already sent", "The mail went out: it is not sent again."),
    "not_ended": Kind(
        409, "Not to be retried", "Only mails that failed, were given up, or are uncertain are tried again by request."
    ),
    "mailbox_ended": Kind(410, "The mailbox has ended", "It was deleted or has expired; what it held is gone."),
    "gone": Kind(410, "Gone", "It was here and has been erased."),
    "too_large": Kind(413, "Content too large", "The request's body is larger than `/v1/limits` says."),
    "attachment_too_large": Kind(413, "Attachment too large", "The file has more bytes than `/v1/limits` says."),
    "message_too_large": Kind(
        413, "Message too large", "With its attachments the mail is larger than its provider takes (`most`, in bytes)."
    ),
    "range_not_satisfiable": Kind(416, "Range not satisfiable", "The content ends before the range begins."),
    "invalid_request": Kind(
        422, "The request is not valid", "`errors` lists each fault and where it is. Under `/v1` the status is 400."
    ),
    "no_recipients": Kind(422, "No recipients", "A mail needs at least one recipient in `to`, `cc` or `bcc`."),
    "too_many_recipients": Kind(
        422, "Too many recipients", "`to`, `cc` and `bcc` have more than `/v1/limits` says; repetitions count once."
    ),
    "ses_notification": Kind(
        422, "No notification of a mail", "The message is genuine and not what Amazon SES says of a received mail."
    ),
    "upgrade_required": Kind(426, "Upgrade required", "This path is a WebSocket: connect to it by `ws:` or `wss:`."),
    "rate_limited": Kind(429, "Too many requests", "`RateLimit` tells the limit, `Retry-After` when to go on."),
    "internal_error": Kind(500, "Internal error", "A fault of ours. The request's id helps us find it."),
    "unavailable": Kind(503, "Not available now", "Nothing was changed. Try again after `Retry-After` seconds."),
    "provider_not_set_up": Kind(
        503, "The provider is not set up", "This installation has no client there: its operator has to name one."
    ),
    "sns_unreachable": Kind(
        503,
        "Amazon SNS can't be reached",
        "A certificate or a confirmation can't be fetched or used now. SNS tries again.",
    ),
    "outcome_unknown": Kind(
        503,
        "The outcome is not known",
        "The request may take effect, or not. With an `Idempotency-Key` it can be repeated without harm.",
    ),
}

#: What is said of a path that isn't there; what is not the caller's is said otherwise.
NO_SUCH_PATH: Final = (
    "There is nothing at this path: `/docs` shows every path there is. None of them ends with a slash."
)

#: The code of a status that a framework answers with by itself.
OF_STATUS: Final[Mapping[int, str]] = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    422: "invalid_request",
    503: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request: a JSON Pointer (RFC 6901) to it, and a sentence."""

    pointer: str
    message: str


@dataclass(eq=False)
class Problem(Exception):
    """An answer that is an error: raise it anywhere below the HTTP surface. `more` are members of this problem alone."""

    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[Fault] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    status: int = 0

    def __post_init__(self) -> None:
        self.status = self.status or KINDS[self.code].status

    def response(self, instance: str, request_id: str) -> Response:
        """The answer to the request of this path and id."""
        kind = KINDS[self.code]
        status = status_at(instance, self.code) if self.code == "invalid_request" else self.status
        body: dict[str, Any] = {
            "type": f"{DOCS}#{self.code}",
            "title": kind.title,
            "status": status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": request_id,
            **self.more,
        }
        if self.errors:
            body["errors"] = [{"pointer": fault.pointer, "message": fault.message} for fault in self.errors]
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(orjson.dumps(body), status, headers, MEDIA_TYPE)


def status_at(path: str, code: str) -> int:
    """The status that a problem with this code has at this path."""
    return 400 if code == "invalid_request" and path.startswith(CONNECTED_ACCOUNTS) else KINDS[code].status


def of_status(status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem of a bare status, as frameworks raise it."""
    code = OF_STATUS.get(status, "bad_request" if status < 500 else "internal_error")
    detail = NO_SUCH_PATH if status == 404 else f"{HTTPStatus(status).phrase}: {KINDS[code].meaning}"
    return Problem(code, detail, headers or {}, status=status)


def not_found() -> Problem:
    """What is not there and what is somebody else's: the same answer."""
    return Problem("not_found", "There is no such thing here, or it is not yours.")


def no_such_user() -> Problem:
    """Of a request that names a user in `userId`: what is not there and who is somebody else's, the same answer."""
    return Problem("not_found", "There is no such user here, or they are not yours: `userId` is an id of `/v1/users`.")


def mailbox_ended() -> Problem:
    return Problem("mailbox_ended", "This mailbox was deleted or has expired.")


def invalid(pointer: str, message: str) -> Problem:
    """One fault of a request: `pointer` says where, as in `/query/limit`."""
    return invalid_all([Fault(pointer, message)])


def invalid_all(faults: Sequence[Fault]) -> Problem:
    """Everything that is wrong with a request, in one answer."""
    detail = faults[0].message if len(faults) == 1 else "Parts of the request are not valid."
    return Problem("invalid_request", detail, errors=faults)


def fault_of_ours() -> Problem:
    return Problem("internal_error", "A fault of ours kept this from being answered.")


def unavailable(detail: str = "We can't answer this now, and nothing was changed; try again shortly.") -> Problem:
    return Problem("unavailable", detail, {"Retry-After": str(RETRY_SECONDS)})


def outcome_unknown(
    detail: str = "We could not confirm this in time: it may have taken effect, or may yet.",
) -> Problem:
    return Problem("outcome_unknown", detail, {"Retry-After": str(RETRY_SECONDS)})
