"""The cookies of connecting, each as narrow as the route that reads it (RFC 6265bis).

A browser that was sent to a provider proves by a cookie that it is the one that comes back. There is one for each consent,
since several may be open at once, and it goes to that provider's callback only. Which ones a browser holds stands in another
cookie, so that there are never more than a few. `__Host-` would want the path `/`; `__Secure-` is what is left to take.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from domain.connection_events import Provider

#: Seconds: as long as the consent it belongs to, and as long as a session of the page.
CONSENT_SECONDS: Final = 600
SESSION_SECONDS: Final = 1800
#: Consents of one browser at once; beginning another gives up the oldest.
MOST_OPEN: Final = 10
ENTRY: Final = re.compile(r"(gmail|outlook|smtp)-([0-9a-f]{16})")
VALUE: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")


@dataclass(frozen=True, slots=True)
class Cookies:
    """As cookies are set where the browser finds us at this URL."""

    public_url: str

    @property
    def secure(self) -> bool:
        return urlsplit(self.public_url).scheme == "https"

    def bind(self, request: Request, response: Response, provider: Provider, state: str, secret: str) -> None:
        """Has the browser remember that it began this consent; the oldest are forgotten where there are too many."""
        opened = [*self._opened(request), (provider, _mark(state))]
        for of, mark in opened[:-MOST_OPEN]:
            self._set(response, f"consent_{mark}", "", self._callback(of), 0)
        kept = ".".join(f"{of}-{mark}" for of, mark in opened[-MOST_OPEN:])
        self._set(response, "open", kept, "/connect", CONSENT_SECONDS)
        self._set(response, f"consent_{_mark(state)}", secret, self._callback(provider), CONSENT_SECONDS)

    def bound(self, request: Request, state: str) -> str | None:
        """What the browser remembers of this consent; None where it did not begin it."""
        return self._read(request, f"consent_{_mark(state)}")

    def unbind(self, response: Response, provider: Provider, state: str) -> None:
        self._set(response, f"consent_{_mark(state)}", "", self._callback(provider), 0)

    def open_session(self, response: Response, secret: str) -> None:
        """Has the browser keep a session of the page."""
        self._set(response, "connect", secret, "/connect", SESSION_SECONDS)

    def session(self, request: Request) -> str | None:
        return self._read(request, "connect")

    def _opened(self, request: Request) -> list[tuple[Provider, str]]:
        found = _jar(request).get(self._name("open"), "")
        entries = [ENTRY.fullmatch(one) for one in found.split(".")[: 2 * MOST_OPEN]]
        return [(entry[1], entry[2]) for entry in entries if entry]  # type: ignore[misc]  # the pattern names the providers

    def _read(self, request: Request, name: str) -> str | None:
        found = _jar(request).get(self._name(name), "")
        return found if VALUE.fullmatch(found) else None

    def _set(self, response: Response, name: str, value: str, path: str, seconds: int) -> None:
        response.set_cookie(
            self._name(name),
            value,
            max_age=seconds,
            path=urlsplit(self.public_url).path.rstrip("/") + path,
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def _name(self, name: str) -> str:
        return f"{'__Secure-' if self.secure else ''}postledger_{name}"

    def _callback(self, provider: Provider) -> str:
        return f"/v1/connect/{provider}/callback"


def _mark(state: str) -> str:
    """Names a consent, and says nothing about its state."""
    return sha256(state.encode()).hexdigest()[:16]


def _jar(request: Request) -> dict[str, str]:
    """Cookies by name; of two with one name, the first, which is the one of the narrower path."""
    found: dict[str, str] = {}
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        found.setdefault(name, value)
    return found
