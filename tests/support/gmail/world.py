"""In the child: everything that a test can change or read. A reset puts a new world in the place of the old one."""

import base64
import fnmatch
import secrets
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.gmail.errors import KINDS, PAGES, Refused
from tests.support.gmail.mailbox import Mailbox
from tests.support.gmail.mails import Mail
from tests.support.gmail.methods import COSTS, FAILURE, SETTINGS

_DAY = 86_400.0
_SAYS = {"kind", "status", "body", "huge", "bomb", "endlessHeaders"}


class Spent:
    """What was spent in the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._all: deque[tuple[float, int]] = deque()
        self.total = 0

    def wait(self, amount: int, most: int | None) -> float:
        """Seconds until there is room for as much again; 0 where there is."""
        now = time.monotonic()
        while self._all and self._all[0][0] <= now - self._seconds:
            self.total -= self._all.popleft()[1]
        left = 0 if most is None else self.total + amount - most
        for at, units in self._all if left > 0 else ():
            left -= units
            if left <= 0:
                return at + self._seconds - now
        return self._seconds if left > 0 else 0.0

    def add(self, amount: int) -> None:
        self._all.append((time.monotonic(), amount))
        self.total += amount


class World:
    """Users, mailboxes, failures to come, counts."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.over = False
        self.settings: dict[str, Any] = dict(SETTINGS)
        self.set(**told["settings"])
        self.tokens: dict[str, dict[str, str]] = dict(told["tokens"])
        self.mailboxes: dict[str, Mailbox] = {}
        self.uploads: dict[str, Any] = {}
        self.failures: list[dict[str, Any]] = []
        self.mails: list[dict[str, Any]] = []
        self.requests: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.answers: dict[str, Counter[int]] = defaultdict(Counter)
        self.calls: deque[dict[str, Any]] = deque(maxlen=50_000)
        self.open: Counter[str] = Counter()
        self.most_open: Counter[str] = Counter()
        self.units: dict[str, Spent] = defaultdict(lambda: Spent(60))
        self.daily: dict[tuple[str, str], Spent] = defaultdict(lambda: Spent(_DAY))
        self._history = 10**20 + secrets.randbelow(10**9)
        for one in self.tokens.values():
            self.mailbox(one["login"])

    def set(self, **settings: Any) -> None:
        if unknown := settings.keys() - SETTINGS.keys():
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        self.settings |= settings

    def mailbox(self, address: str) -> Mailbox:
        name = address.lower()
        if name not in self.mailboxes:
            self.mailboxes[name] = Mailbox(address, self._next_history, self.settings)
        return self.mailboxes[name]

    def _next_history(self) -> str:
        self._history += 1 + secrets.randbelow(500)
        return str(self._history)

    def token(self, token: str, login: str | None = None, scope: str = "") -> None:
        """From now on this token is good for that, or for nothing."""
        if login is None:
            self.tokens.pop(token, None)
        else:
            self.tokens[token] = {"login": login, "scope": scope}

    def put(self, address: str, raw: str, labels: list[str]) -> dict[str, Any]:
        """A mail that came from somewhere else."""
        mail = base64.b64decode(raw)
        return self.mailbox(address).add(Mail.read(mail), mail, labels).brief()

    def fail(self, **words: Any) -> None:
        if unknown := words.keys() - FAILURE:
            raise ValueError(f"unknown words of a failure: {sorted(unknown)}")
        if "kind" in words and words["kind"] not in KINDS.keys() | PAGES.keys():
            raise ValueError(f"unknown kind of refusal: {words['kind']}")
        if words.get("drop") not in (None, "before", "after", "inside") or words.get("when") not in (
            None,
            "before",
            "after",
        ):
            raise ValueError("drop is before, after or inside; when is before or after")
        self.failures.append({"match": "*", "times": 1, "skip": 0, "when": "before"} | words)

    def due(self, name: str, user: str | None, material: bytes) -> dict[str, Any]:
        """The failure of this request, counted; an empty one without."""
        for one in self.failures:
            fits = fnmatch.fnmatchcase(name, one["match"]) and one["times"] > 0
            if not fits or one.get("user") not in (None, user) or one.get("containing", "").encode() not in material:
                continue
            if one["skip"] > 0:
                one["skip"] -= 1
                continue
            one["times"] -= 1
            self.injected[name] += 1
            return one
        return {}

    @contextmanager
    def counted(self, name: str, user: str | None) -> Iterator[dict[str, Any]]:
        """The line of this call; whoever answers it writes the status there (0: cut)."""
        who = user or ""
        line = {"method": name, "user": user, "at": time.time(), "status": 0, "beside": self.open[who]}
        self.requests[name] += 1
        self.calls.append(line)
        self.open[who] += 1
        self.most_open[who] = max(self.most_open[who], self.open[who])
        try:
            yield line
        finally:
            self.open[who] -= 1
            line["ended"] = time.time()
            self.answers[name][line["status"]] += 1

    def charge(self, name: str, user: str, beside: int) -> None:
        """Units of this call, which came beside others of its user: of the user's minute, the project's, and its day."""
        settings = self.settings
        most = settings["concurrentPerUser"]
        if most is not None and beside >= most:
            raise Refused("concurrent")
        cost = (COSTS | settings["costs"]).get(name, 0)
        if self.daily["", "units"].wait(cost, settings["unitsPerDay"]):
            raise Refused("dailyLimitExceeded")
        waits = [
            self.units[user].wait(cost, settings["unitsPerUser"]),
            self.units[""].wait(cost, settings["unitsPerProject"]),
        ]
        if wait := max(waits):
            after = {"Retry-After": str(int(wait) + 1)} if settings["quotaRetryAfter"] else {}
            raise Refused(settings["quotaKind"], "", **after)
        for spent in (self.units[user], self.units[""], self.daily["", "units"]):
            spent.add(cost)

    def may_send(self, user: str, recipients: int) -> None:
        """Refuses when this user has sent as much as a day has room for."""
        sends, reached = self.daily[user, "sends"], self.daily[user, "recipients"]
        if sends.wait(1, self.settings["sendsPerDay"]) or reached.wait(recipients, self.settings["recipientsPerDay"]):
            raise Refused("mailSending")
        sends.add(1)
        reached.add(recipients)

    def told(self) -> dict[str, Any]:
        left = [one for one in self.failures if one["times"] > 0]
        return {
            "requests": self.requests, "injected": self.injected, "answers": self.answers, "calls": list(self.calls),
            "failures": left, "open": +self.open, "mostOpen": self.most_open, "sent": len(self.mails),
            "units": {user: spent.total for user, spent in self.units.items() if user},
            "drafts": {box.address: list(box.drafts) for box in self.mailboxes.values()},
        }  # fmt: skip


def says_something(failure: dict[str, Any]) -> bool:
    """Whether it has an answer of its own, and not only a way to give one."""
    return bool(_SAYS & failure.keys())
