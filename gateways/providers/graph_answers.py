"""What Microsoft Graph's answers mean for a mail that is to be sent: one table of its codes.

Codes: learn.microsoft.com/graph/errors and learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode;
waits: learn.microsoft.com/graph/throttling. A message of Graph's is for people and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from domain.delivery import Deferred, InDoubt, NotProven, Refused, TokenRefused
from gateways.providers.calls import Reply
from gateways.providers.sending import readable, sensible

#: Said by whatever stood in between and gave up waiting, so what it waited for may have happened.
GAVE_UP: Final = frozenset({408, 499})
#: How Graph says that there is no such message.
GONE: Final = frozenset({(404, "ErrorItemNotFound"), (400, "ErrorInvalidIdMalformed")})

Definite = Deferred | Refused | TokenRefused

#: (status, code) to what it means; None stands for any. The most exact row counts, and of two equal ones that of the code.
TABLE: Final[Mapping[tuple[int | None, str | None], Definite]] = {
    (400, "ErrorInvalidRecipients"): Refused("recipients_refused"),
    (400, "ErrorMimeContentInvalidBase64String"): Refused("message_refused"),
    (400, "ErrorMimeContentInvalid"): Refused("message_refused"),
    (400, "ErrorInvalidInternetHeader"): Refused("message_refused"),
    (400, "InvalidInternetMessageHeader"): Refused("message_refused"),
    (400, "InvalidInternetMessageHeaderCollection"): Refused("message_refused"),
    (400, "ErrorInvalidPropertySet"): Refused("message_refused"),
    (400, "ErrorInvalidIdMalformed"): Refused("message_refused"),
    (400, "RequestBodyRead"): Refused("message_refused"),
    (400, "BadRequest"): Refused("message_refused"),
    (401, None): TokenRefused(),
    (403, None): Refused("not_allowed"),
    (404, "ErrorItemNotFound"): Deferred("temporarily_refused"),
    (404, None): Refused("not_found"),
    (409, None): Deferred("temporarily_refused"),
    (412, None): Deferred("temporarily_refused"),
    (413, None): Refused("message_too_large"),
    (423, None): Deferred("temporarily_refused"),
    (429, None): Deferred("rate_limited", counted=False),
    (509, None): Deferred("rate_limited", counted=False),
    (None, "ApplicationThrottled"): Deferred("rate_limited", counted=False),
    (None, "ErrorAccessDenied"): Refused("not_allowed"),
    (None, "ErrorAccountSuspend"): Refused("mailbox_disabled"),
    (None, "ErrorAttachmentSizeLimitExceeded"): Refused("message_too_large"),
    # Exchange's daily limit of recipients, and the block that it puts on a mailbox which is beyond it.
    (None, "ErrorExceededMessageLimit"): Deferred("daily_quota", counted=False),
    (None, "ErrorMessageSubmissionBlocked"): Deferred("daily_quota", counted=False),
    (None, "ErrorQuotaExceeded"): Deferred("daily_quota", counted=False),
    (None, "ErrorIrresolvableConflict"): Deferred("temporarily_refused"),
    (None, "ErrorMailboxNotEnabledForRESTAPI"): Refused("mailbox_disabled"),
    (None, "MailboxNotEnabledForRESTAPI"): Refused("mailbox_disabled"),
    (None, "MailboxNotSupportedForRESTAPI"): Refused("mailbox_disabled"),
    (None, "ErrorNonExistentMailbox"): Refused("mailbox_disabled"),
    (None, "ErrorMessageSizeExceeded"): Refused("message_too_large"),
    (None, "ErrorSendAsDenied"): Refused("not_allowed"),
    (None, "ErrorServerBusy"): Deferred("rate_limited", counted=False),
    (None, "ErrorTooManyObjectsOpened"): Deferred("mailbox_busy", counted=False),
    (None, "MailboxConcurrency"): Deferred("mailbox_busy", counted=False),
    (None, "TooManyRequests"): Deferred("rate_limited", counted=False),
}
OTHERWISE: Final = Deferred("server_error")


@dataclass(frozen=True, slots=True)
class Error:
    """Graph's own error: `{"error": {"code", "message"}}`. `said` is its message as a mailbox's owner may read it."""

    code: str
    said: str | None = field(default=None, repr=False)


def error_in(reply: Reply) -> Error | None:
    """The error that an answer tells of; None where it is not of Graph's form, so that somebody else may have said it."""
    found = (reply.body or {}).get("error")
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return None
    message = found.get("message")
    return Error(found["code"], readable(message) if isinstance(message, str) else None)


def is_gone(reply: Reply) -> bool:
    """Whether Graph says that it has no such message."""
    error = error_in(reply)
    return error is not None and (reply.status, error.code) in GONE


def meaning(reply: Reply) -> Definite:
    """What an answer without success means where it is certain that nothing went out."""
    error = error_in(reply)
    match _row(reply.status, None if error is None else error.code):
        case Deferred() as found:
            return replace(found, said=_said(error), retry_after=sensible(reply.retry_after))
        case Refused() as found:
            # A refusal for good is believed to Graph alone, not to a proxy on the way.
            return Deferred("answer_unreadable") if error is None else replace(found, said=error.said)
        case TokenRefused() as found:
            return found


def meaning_of_sending(reply: Reply) -> Definite | InDoubt:
    """The same of the call that sends the mail: only a refusal in Graph's own words shows that nothing went out."""
    error = error_in(reply)
    if reply.status >= 500 or reply.status in GAVE_UP:
        return InDoubt("server_error", _said(error))
    return InDoubt("answer_unreadable") if error is None or reply.ok else meaning(reply)


def not_proven(answer: Definite) -> NotProven | TokenRefused:
    """The same of a call that looks for the mail."""
    match answer:
        case Deferred("rate_limited" | "mailbox_busy" | "daily_quota", wait):
            return NotProven("rate_limited", wait)
        case Deferred(_, wait):
            return NotProven("server_error", wait)
        case Refused():
            return NotProven("not_allowed")
        case TokenRefused():
            return answer


def _said(error: Error | None) -> str | None:
    return None if error is None else error.said


def _row(status: int, code: str | None) -> Definite:
    for place in ((status, code), (None, code), (status, None)):
        if place in TABLE and place != (None, None):
            return TABLE[place]
    return OTHERWISE
