"""Google's refusals, word for word, by a name of ours. Which means what: the notes on providers, section 2.1."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

_PER_USER = (
    "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user' of service 'gmail.googleapis.com'"
    " for consumer 'project_number:123456789012'."
)
_CREDENTIAL = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid"
    " authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)
_NO_CREDENTIAL = (
    "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid"
    " authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)
_SCOPES = "Request had insufficient authentication scopes."
_ADMIN = "The domain administrators have disabled Gmail apps."

#: Kind: (code, status, reason, domain, message). `{until}` is a moment; `{text}` is what the place that refuses says.
KINDS: dict[str, tuple[int, str, str, str, str]] = {
    "badRequest": (400, "INVALID_ARGUMENT", "badRequest", "global", "{text}"),
    "invalidArgument": (400, "INVALID_ARGUMENT", "invalidArgument", "global", "{text}"),
    "failedPrecondition": (400, "FAILED_PRECONDITION", "failedPrecondition", "global", "Mail service not enabled"),
    "authError": (401, "UNAUTHENTICATED", "authError", "global", _CREDENTIAL),
    "required": (401, "UNAUTHENTICATED", "required", "global", _NO_CREDENTIAL),
    "insufficientPermissions": (403, "PERMISSION_DENIED", "insufficientPermissions", "global", _SCOPES),
    "forbidden": (403, "PERMISSION_DENIED", "forbidden", "global", "{text}"),
    "domainPolicy": (403, "PERMISSION_DENIED", "domainPolicy", "global", _ADMIN),
    "rateLimitExceeded": (403, "RESOURCE_EXHAUSTED", "rateLimitExceeded", "usageLimits", _PER_USER),
    "userRateLimitExceeded":
        (403, "RESOURCE_EXHAUSTED", "userRateLimitExceeded", "usageLimits", "User Rate Limit Exceeded"),
    "quotaExceeded": (403, "RESOURCE_EXHAUSTED", "quotaExceeded", "usageLimits", "Quota exceeded."),
    "dailyLimitExceeded": (403, "RESOURCE_EXHAUSTED", "dailyLimitExceeded", "usageLimits", "Daily Limit Exceeded"),
    "notFound": (404, "NOT_FOUND", "notFound", "global", "Requested entity was not found."),
    "uploadTooLarge": (413, "", "uploadTooLarge", "global", "Request Entity Too Large"),
    "tooManyRequests": (429, "RESOURCE_EXHAUSTED", "rateLimitExceeded", "global",
                        "Resource has been exhausted (e.g. check quota)."),
    "mailSending": (429, "RESOURCE_EXHAUSTED", "userRateLimitExceeded", "usageLimits",
                    "User-rate limit exceeded.  Retry after {until} (Mail sending)"),
    "concurrent": (429, "RESOURCE_EXHAUSTED", "rateLimitExceeded", "global", "Too many concurrent requests for user."),
    "backendError": (500, "INTERNAL", "backendError", "global", "Backend Error"),
    "internalError": (500, "INTERNAL", "internalError", "global", "Internal error encountered."),
    "unavailable": (503, "UNAVAILABLE", "backendError", "global", "The service is currently unavailable."),
    "deadline": (504, "DEADLINE_EXCEEDED", "backendError", "global", "Deadline expired before operation could complete."),
}  # fmt: skip
#: Google's front ends answer for themselves, and not in JSON.
PAGES = {"badGateway": 502, "gatewayTimeout": 504}
#: What a bare status says.
BY_STATUS = {400: "badRequest", 401: "authError", 403: "forbidden", 404: "notFound", 413: "uploadTooLarge",
             429: "tooManyRequests", 500: "backendError", 502: "badGateway", 503: "unavailable", 504: "deadline"}  # fmt: skip
#: How the older half of the same answer puts it, where it says something else.
_OLDER = {"authError": "Invalid Credentials", "required": "Login Required.", "insufficientPermissions":
          "Insufficient Permission"}  # fmt: skip
_CHALLENGES = {
    "authError": 'Bearer realm="https://accounts.google.com/", error="invalid_token"',
    "required": 'Bearer realm="https://accounts.google.com/"',
    "insufficientPermissions": 'Bearer realm="https://accounts.google.com/", error="insufficient_scope"',
}


@dataclass
class Answer:
    """What is said over HTTP."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, said: Any, status: int = 200, **headers: str) -> "Answer":
        return cls(status, json.dumps(said).encode(), {"Content-Type": "application/json; charset=UTF-8", **headers})


class Refused(Exception):
    """A refusal of one of the kinds above."""

    def __init__(self, kind: str, text: str = "", **headers: str) -> None:
        self.kind, self.text, self.headers = kind, text, headers
        super().__init__(f"{kind}: {text}")

    def answer(self) -> Answer:
        said = refusal(self.kind, self.text)
        return Answer(said.status, said.body, said.headers | self.headers)


def refusal(kind: str, text: str = "", *, until: float = 900) -> Answer:
    """The answer of this kind; `until` is how many seconds from now its message names, where it names a time."""
    if kind in PAGES:
        page = f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {PAGES[kind]} (Server Error)!!1</title>\n"
        return Answer(PAGES[kind], page.encode(), {"Content-Type": "text/html; charset=UTF-8"})
    code, status, reason, domain, message = KINDS[kind]
    moment = (datetime.now(UTC) + timedelta(seconds=until)).isoformat(timespec="milliseconds")
    message = message.format(text=text or "Bad Request", until=moment.replace("+00:00", "Z"))
    one = {"message": _OLDER.get(kind, message), "domain": domain, "reason": reason}
    if code == 401:
        one |= {"location": "Authorization", "locationType": "header"}
    error: dict[str, Any] = {"code": code, "message": message, "errors": [one]}
    if status:
        error["status"] = status
    if kind == "insufficientPermissions":
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
        error["details"] = [info | {"domain": "googleapis.com", "metadata": {"service": "gmail.googleapis.com"}}]
    challenge = {"WWW-Authenticate": _CHALLENGES[kind]} if kind in _CHALLENGES else {}
    return Answer.json({"error": error}, code, **challenge)
