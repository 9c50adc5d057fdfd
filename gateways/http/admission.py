"""Who may watch what. Browsers can't set headers on EventSource and WebSocket, so credentials may come in the query here."""

from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol
from urllib.parse import parse_qs

from aiokafka.partitioner import murmur2

from domain.scopes import KeyScope, allows
from gateways.http import problems
from gateways.http.connections import Scope
from gateways.http.problems import Problem
from gateways.http.rate_headers import origin_of
from gateways.http.services import Services
from gateways.http.user_feeds import USER_FEEDS
from gateways.http.who import (
    Caller,
    Credentials,
    allowed,
    caller,
    foreign_origin,
    is_foreign,
    mailbox_for,
    request_permit,
)
from projections import mailboxes
from projections.mailboxes import MailboxRow
from schemas.topics import MAILBOX_EVENTS

#: Whoever may watch at all sees what happens to mailboxes.
ALONE: Final = frozenset({MAILBOX_EVENTS.name})
#: Fields of a query that are looked at.
FIELDS: Final = 20
RETRY_LATER: Final = {"Retry-After": "30"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for a stream says: who asks, and from where on. `origin_is_foreign`: a page of another site asks."""

    credentials: Credentials
    resume_from: str | None
    origin_is_foreign: bool

    @classmethod
    def of(cls, scope: Scope) -> "Asked":
        """Takes the query out of the scope: servers log it, and a credential must not be logged."""
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        try:
            query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=FIELDS)
        except ValueError:
            query = {}
        scope["query_string"] = b""
        return cls(
            Credentials(
                origin_of(scope),
                authorization=_text(headers.get(b"authorization")),
                token=query.get("token", [None])[0],
                api_key=query.get("api_key", [None])[0],
            ),
            # A browser comes back to the same address: where it has got to is in the header.
            resume_from=_text(headers.get(b"last-event-id")) or query.get("after", [None])[0],
            origin_is_foreign=is_foreign(_text(headers.get(b"origin")), _text(headers.get(b"host"))),
        )


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who may watch. `mailbox` is None where it is all of the owner; `key` is the API key's id.

    `topics` are those of which they may see what happens to the owner.
    """

    owner: str
    partition: int
    mailbox: MailboxRow | None
    key: str | None
    topics: frozenset[str] = ALONE


class Admits(Protocol):
    """Both raise a Problem: 401, 403, 404, 410 where the mailbox has ended, or 429."""

    async def to_mailbox(self, asked: Asked, address: str) -> Admitted: ...

    async def to_all(self, asked: Asked) -> Admitted: ...


class Partitions(Protocol):
    @property
    def partitions(self) -> list[tuple[str, int]]: ...


class Admission:
    """Decides by the same rules as the rest of the API."""

    def __init__(self, services: Services, tail: Partitions) -> None:
        self._services = services
        self._tail = tail

    async def to_mailbox(self, asked: Asked, address: str) -> Admitted:
        who = await self._caller(asked, "mailboxes:read")
        row = await mailbox_for(self._services, who, address)
        return Admitted(row.owner, row.partition, row, who.holder.key if who.holder else None)

    async def to_all(self, asked: Asked) -> Admitted:
        who = await self._caller(asked, "events:read")
        if who.mailbox is not None:
            row = allowed(who, await mailboxes.by_id(self._services.pool, who.mailbox))
            return Admitted(row.owner, row.partition, row, None)
        scopes = who.holder.scopes if who.holder else []
        return Admitted(who.owner, self._partition_of(who.owner), None, who.by, topics_for(frozenset(scopes)))

    async def _caller(self, asked: Asked, scope: KeyScope) -> Caller:
        found = await caller(self._services, asked.credentials)
        if found.holder is not None and asked.origin_is_foreign:
            raise foreign_origin()
        found.assert_scope(scope)
        await request_permit(self._services, found)
        return found

    def _partition_of(self, owner: str) -> int:
        """Where the events of this owner are: as producers place a record by its key."""
        partitions = [number for topic, number in self._tail.partitions if topic == MAILBOX_EVENTS.name]
        number: int = murmur2(owner.encode()) & 0x7FFFFFFF
        return partitions[number % len(partitions)]


@cache
def topics_for(scopes: frozenset[str]) -> frozenset[str]:
    """What keys with these scopes see; made once, since every stream of theirs holds it."""
    return ALONE | {topic for topic, feed in USER_FEEDS.items() if allows(list(scopes), feed.scope)}


def too_many() -> Problem:
    """As many streams are open as there may be."""
    return Problem("rate_limited", "As many streams are open as there may be; close one, or try later.", RETRY_LATER)


def closing() -> Problem:
    return problems.unavailable("This server is about to restart; connect again.")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
