"""Where a user's browser may be sent back to: URLs that the operator lists, and what stands below them.

A browser, a proxy and a program read a URL with tricks in it in three ways, so one with any is refused rather than put right:
what is compared here is all that anybody could read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus, unquote_to_bytes, urlencode

LONGEST: Final = 2000
PORTS: Final = {"http": 80, "https": 443}
#: RFC 3986 without user name, fragment, bare `%`, and the host forms that only some readers know.
URL: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)"
    r"(?:\?(?P<query>(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*))?",
    re.ASCII,
)
#: In a path: what somebody may unpack to a dot, a slash, a backslash, a percent sign or a control character.
UNPACKED: Final = re.compile(r"%(?:2e|2f|5c|25|[01][0-9a-f]|7f)", re.IGNORECASE)
CONTROLS_IN_QUERY: Final = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
#: What we add; a URL that has one of them already would say two things, however it is spelled.
OURS: Final = frozenset({"connectionId", "status", "error", "operationId"})


@dataclass(frozen=True, slots=True)
class Place:
    """A URL's scheme, host, port and path, each in the one form it is compared in."""

    scheme: str
    host: str
    port: int
    path: str

    def holds(self, other: "Place") -> bool:
        """Whether the other is this very place, or below it."""
        if (self.scheme, self.host, self.port) != (other.scheme, other.host, other.port):
            return False
        below = self.path if self.path.endswith("/") else f"{self.path}/"
        return other.path == self.path or other.path.startswith(below)


class ReturnUrls:
    """The places of `POSTLEDGER_RETURN_URLS`. Raises ValueError for one that is no plain http(s) URL."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._places: list[Place] = []
        for url in urls:
            place = _place(url)
            if place is None or "?" in url:
                raise ValueError(f"{url} is no http or https URL that users could be sent back to.")
            self._places.append(place)

    @classmethod
    def of(cls, setting: str) -> "ReturnUrls":
        """Of URLs separated by commas."""
        return cls(url.strip() for url in setting.split(",") if url.strip())

    def allow(self, url: str) -> bool:
        """Whether a browser may be sent there, with the outcome in its query."""
        place = _place(url)
        return place is not None and any(allowed.holds(place) for allowed in self._places)


def with_outcome(url: str, **outcome: str) -> str:
    """An allowed URL with the outcome behind whatever its query has already."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(outcome)}"


def _place(url: str) -> Place | None:
    found = URL.fullmatch(url) if len(url) <= LONGEST else None
    if found is None:
        return None
    path, query, scheme = found["path"] or "/", found["query"] or "", found["scheme"]
    port = int(found["port"] or PORTS[scheme])
    if port > 65535 or _is_ambiguous(path) or CONTROLS_IN_QUERY.search(query) or _says_ours(query):
        return None
    return Place(scheme, found["host"].lower(), port, path)


def _says_ours(query: str) -> bool:
    """Some readers take `;` for `&` as well."""
    return any(unquote_plus(part.partition("=")[0]) in OURS for part in re.split("[&;]", query))


def _is_ambiguous(path: str) -> bool:
    """Dots, `//`, and what is one of them to somebody who unpacks it, or who takes `;…` for a parameter."""
    try:
        unquote_to_bytes(path).decode()  # what is no UTF-8 is a dot or a slash to somebody: `%c0%ae`
    except UnicodeDecodeError:
        return True
    if UNPACKED.search(path):
        return True
    segments = path.split("/")[1:]
    return "" in segments[:-1] or any(segment.partition(";")[0] in {".", ".."} for segment in segments)
