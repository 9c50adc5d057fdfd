"""In the child: the settings, the failures to come, the counts, and whose a token is."""

import copy
import fnmatch
import math
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.support.graph.answers import Answer, Refused

SETTINGS: dict[str, Any] = {
    "oauth": None,  # the issuer of an OAuthServer that is asked about every token, each time
    "seed": 0,  # of ids, and of which answers are lost
    "lostAnswers": 0.0,  # the share of mails that go out and whose 202 never arrives; see UNKIND in double.py
    "lostBy": "drop",  # drop (RST), hang (for an hour), or 504
    "sentLag": 0.3,  # seconds until a mail that was sent is in Sent Items
    "lagShows": "outbox",  # until then: outbox (still isDraft), missing (404), or draft (and it can be sent once more!)
    "latency": 0.0,  # seconds before the work of every request
    "concurrent": 4,  # requests at once, of one mailbox
    "concurrencyCode": "MailboxConcurrency",  # others have met ApplicationThrottled with the same message
    "concurrencyRetryAfter": 1,
    "requests": 10_000,  # of one mailbox in …
    "windowSeconds": 600,
    "mailsPerMinute": 30,
    "recipients": 500,
    "requestBytes": 4 << 20,
    "messageBytes": 35 << 20,
    "attachmentBytes": 3_145_611,  # the largest that a POST takes, as somebody has measured
    "sessionBytes": 3_000_000,  # the smallest that gets an upload session
    "chunkBytes": 4 << 20,  # a chunk is smaller
    "sync": True,  # whether a receipt is on the disk before the answer
    "keptBytes": 1 << 18,  # mails up to this size are whole in their receipt; at 0 none is even written out
}  # fmt: skip
FAILURE = {
    "match", "times", "skip", "user", "containing", "status", "code", "message", "body", "headers", "retryAfter", "retryAt",
    "when", "delay", "delayAfter", "drop", "truncate", "drip", "endlessHeaders", "huge", "bomb",
}  # fmt: skip
_CHOICES = {"when": {"before", "after"}, "drop": {"before", "after", "inside"}}
_SETTING_CHOICES = {"lostBy": {"drop", "hang", "504"}, "lagShows": {"outbox", "missing", "draft"}}
_CALLS_KEPT = 50_000


@dataclass
class Use:
    """How one mailbox is used, and how hard."""

    running: int = 0
    most: int = 0
    requests: deque[float] = field(default_factory=deque)
    mails: deque[float] = field(default_factory=deque)
    throttled: Counter[str] = field(default_factory=Counter)


class State:
    """Everything that a test can change or read, but for the mailboxes."""

    def __init__(self, settings: dict[str, Any], tokens: dict[str, dict[str, str]], operations: set[str]) -> None:
        self._initial, self._tokens, self._operations = settings, tokens, operations
        self._http: aiohttp.ClientSession | None = None
        self.forget()

    def forget(self) -> None:
        self.settings = copy.deepcopy(SETTINGS)
        self.set(**copy.deepcopy(self._initial))
        self.tokens = copy.deepcopy(self._tokens)
        self.failures: list[dict[str, Any]] = []
        self.use: dict[str, Use] = defaultdict(Use)
        self.counts: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.calls: deque[list[Any]] = deque(maxlen=_CALLS_KEPT)
        self.mails = self.lost = 0

    def set(self, **settings: Any) -> None:
        if unknown := settings.keys() - SETTINGS.keys():
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        _check(settings, _SETTING_CHOICES)
        self.settings |= settings

    def fail(self, **failure: Any) -> None:
        if unknown := failure.keys() - FAILURE:
            raise ValueError(f"unknown words of a failure: {sorted(unknown)}")
        match = failure.get("match", "*")
        if not fnmatch.filter(self._operations, match):
            raise ValueError(f"no operation {match}: there are {sorted(self._operations)}")
        _check(failure, _CHOICES)
        self.failures.append({"times": 1, "skip": 0} | failure)

    def due(self, operation: str, login: str | None, content: bytes) -> dict[str, Any]:
        """The failure of this request, counted; an empty one without."""
        for one in self.failures:
            if one["times"] < 1 or not fnmatch.fnmatchcase(operation, one.get("match", "*")):
                continue
            if one.get("user", login) != login or one.get("containing", "").encode() not in content:
                continue
            if one["skip"] > 0:
                one["skip"] -= 1
                continue
            one["times"] -= 1
            self.injected[operation] += 1
            return one
        return {}

    @contextmanager
    def slot(self, login: str) -> Iterator[None]:
        """One of the few requests that a mailbox has at once."""
        use, now = self.use[login], time.monotonic()
        if use.running >= self.settings["concurrent"]:
            use.throttled["concurrency"] += 1
            code, seconds = self.settings["concurrencyCode"], str(self.settings["concurrencyRetryAfter"])
            raise Refused(429, code, "Application is over its MailboxConcurrency limit.", Retry_After=seconds)
        window = self.settings["windowSeconds"]
        self._within(use, "requests", now, self.settings["requests"], window)
        use.requests.append(now)
        use.running += 1
        use.most = max(use.most, use.running)
        try:
            yield
        finally:
            use.running -= 1

    def mail(self, login: str) -> None:
        """Count one that goes out, or refuse it."""
        use, now = self.use[login], time.monotonic()
        self._within(use, "mails", now, self.settings["mailsPerMinute"], 60)
        use.mails.append(now)

    def _within(self, use: Use, what: str, now: float, limit: int, window: float) -> None:
        times: deque[float] = getattr(use, what)
        while times and times[0] <= now - window:
            times.popleft()
        if len(times) >= limit:
            use.throttled[what] += 1
            seconds = math.ceil(times[len(times) - limit] + window - now) if limit > 0 else math.ceil(window)
            message = f"Application is over its limit of {limit} {what} in {window:g} seconds."
            raise Refused(429, "ApplicationThrottled", message, Retry_After=str(max(1, seconds)))

    def loses(self) -> dict[str, Any]:
        """How the answer to a mail that has just gone out is said: nothing special, or never."""
        self.mails += 1
        chance = random.Random(f"{self.settings['seed']}:{self.mails}").random()
        if chance >= self.settings["lostAnswers"]:
            return {}
        self.lost += 1
        return {"drop": {"drop": "after"}, "hang": {"hangs": True}, "504": {"status": 504}}[self.settings["lostBy"]]

    async def who(self, token: str) -> tuple[str, frozenset[str]] | None:
        """The mailbox and the scopes of a token that is alive now."""
        if known := self.tokens.get(token):
            return known["login"], _scopes(known["scope"])
        if not self.settings["oauth"]:
            return None
        found = await self._asked("POST", "/_test/token", json={"token": token})
        if not found["alive"] or found["kind"] != "AccessToken":
            return None
        return found["login"], _scopes(found.get("scope") or "")

    async def profile(self, token: str) -> Answer | None:
        """What the authorization server itself says at /v1.0/me, so that both name the same user."""
        if not self.settings["oauth"] or token in self.tokens:
            return None
        return Answer(200, await self._asked("GET", "/v1.0/me", headers={"Authorization": f"Bearer {token}"}))

    async def _asked(self, method: str, path: str, **words: Any) -> Any:
        self._http = self._http or aiohttp.ClientSession()
        try:
            async with self._http.request(method, self.settings["oauth"] + path, **words) as answer:
                if answer.status != 200:
                    raise Refused(answer.status, "UnknownError", f"the authorization server said {answer.status}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Refused(503, "ServiceUnavailable", f"the authorization server: {error!r}") from error

    def told(self) -> dict[str, Any]:
        users = {
            login: {
                "running": use.running,
                "maxConcurrent": use.most,
                "requests": len(use.requests),
                "throttled": use.throttled,
            }
            for login, use in self.use.items()
        }
        left = [one for one in self.failures if one["times"] > 0]
        names = ("settings", "counts", "injected", "mails", "lost")
        told = {name: getattr(self, name) for name in names}
        return told | {"users": users, "failures": left, "calls": list(self.calls)}


def _check(words: dict[str, Any], choices: dict[str, set[str]]) -> None:
    for name, allowed in choices.items():
        if name in words and words[name] not in allowed:
            raise ValueError(f"{name} is one of {sorted(allowed)}, not {words[name]!r}")


def _scopes(scope: str) -> frozenset[str]:
    return frozenset(one.removeprefix("https://graph.microsoft.com/") for one in scope.split())
