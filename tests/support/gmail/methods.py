"""What is data: every method that is served, the scopes that open it, what it costs, and every setting."""

from dataclasses import dataclass
from typing import Any

_ALL = "https://mail.google.com/"
_AUTH = "https://www.googleapis.com/auth/gmail."


def _scopes(*names: str) -> frozenset[str]:
    return frozenset({_ALL, *(_AUTH + name for name in names)})


_WRITE = _scopes("modify", "compose")
_READ_DRAFTS = _scopes("modify", "compose", "readonly")
_READ = _scopes("modify", "readonly", "metadata")
METADATA = f"{_AUTH}metadata"


@dataclass(frozen=True)
class Method:
    """One method of the API, by the name that Google gives it (without `users.`)."""

    name: str
    verb: str
    path: str  # below /gmail/v1/users/{user}
    scopes: frozenset[str]
    uploads: bool = False
    sends: bool = False


METHODS = [
    Method("getProfile", "GET", "/profile", _scopes("modify", "compose", "readonly", "metadata")),
    Method("labels.list", "GET", "/labels", _scopes("modify", "readonly", "metadata", "labels")),
    Method("labels.get", "GET", "/labels/{id}", _scopes("modify", "readonly", "metadata", "labels")),
    Method("messages.send", "POST", "/messages/send", _scopes("modify", "compose", "send"), uploads=True, sends=True),
    Method("messages.list", "GET", "/messages", _READ),
    Method("messages.get", "GET", "/messages/{id}", _READ),
    Method("threads.get", "GET", "/threads/{id}", _READ),
    Method("drafts.list", "GET", "/drafts", _READ_DRAFTS),
    Method("drafts.create", "POST", "/drafts", _WRITE, uploads=True),
    Method("drafts.send", "POST", "/drafts/send", _WRITE, uploads=True, sends=True),
    Method("drafts.get", "GET", "/drafts/{id}", _READ_DRAFTS),
    Method("drafts.update", "PUT", "/drafts/{id}", _WRITE, uploads=True),
    Method("drafts.delete", "DELETE", "/drafts/{id}", _WRITE),
]
BY_NAME = {method.name: method for method in METHODS}

#: Units of quota, as they are for projects since May 2026.
COSTS = {
    "getProfile": 1, "labels.list": 1, "labels.get": 1, "messages.send": 100, "messages.list": 5, "messages.get": 20,
    "threads.get": 40, "drafts.list": 5, "drafts.create": 10, "drafts.send": 100, "drafts.get": 5, "drafts.update": 15,
    "drafts.delete": 10,
}  # fmt: skip

#: What a test may change, and what it is by default: as unkind as Gmail is.
SETTINGS: dict[str, Any] = {
    "oauth": None,  # the issuer of an OAuthServer, which is asked about each token at each request
    "messageId": "rewritten",  # or "kept": what becomes of the sender's Message-ID when it is sent
    "indexLag": 2.0,  # seconds until a search finds what was sent
    "draftLag": 0.0,  # seconds for which a draft that was sent can still be read (but not sent)
    "threadsByHeaders": True,  # a threadId counts only with References of that thread and its Subject
    "fromRewritten": True,  # a From that is not the account's becomes it
    "aliases": [],  # addresses that any account may send from as well
    "messageBytes": 36_700_160,
    "jsonBytes": 5_242_880,  # of a request in JSON: what is larger goes to /upload
    "recipientsPerMessage": 100,
    "costs": {},  # units of methods, laid over those above
    "unitsPerUser": 6_000,  # a minute; this and the next six: None is no limit
    "unitsPerProject": 1_200_000,  # a minute
    "unitsPerDay": 80_000_000,  # of the project
    "sendsPerDay": 2_000,  # of a user
    "recipientsPerDay": 10_000,  # of a user
    "concurrentPerUser": 10,
    "quotaKind": "rateLimitExceeded",  # in errors.py; of a user's or the project's minute
    "quotaRetryAfter": False,  # whether a Retry-After says when the minute is over
    "latency": 0.0,  # seconds before every answer
    "markerHeader": "X-Postledger-Marker",  # of a mail, which its receipt repeats
    "fsync": True,  # before an answer says that something was sent
}  # fmt: skip
#: The settings of a Gmail that is kind and fast, for benchmarks.
KIND: dict[str, Any] = {
    "messageId": "kept", "indexLag": 0.0, "threadsByHeaders": False, "unitsPerUser": None, "unitsPerProject": None,
    "unitsPerDay": None, "sendsPerDay": None, "recipientsPerDay": None, "concurrentPerUser": None,
}  # fmt: skip

#: What can be said of a failure: see `GmailFake.fail`.
FAILURE = {
    "match", "times", "skip", "user", "containing", "kind", "status", "headers", "body", "retryAfter", "until", "when",
    "delay", "delayAfter", "drop", "truncate", "drip", "huge", "bomb", "endlessHeaders",
}  # fmt: skip
