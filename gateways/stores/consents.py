"""What connecting a mailbox has to remember on its way through a browser: tickets, consents, and sessions of our page.

What a browser carries is 256 random bits, and only their SHA-256 is kept here. What else is remembered is sealed, for ten
minutes; nothing of it outlives its time for long, or a user who is deleted. Each ticket and each consent can be used once:
one statement finds it and marks it, and where it is not found, or is another browser's or another provider's, nothing has
changed.
"""

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import orjson

from gateways.stores.keyset import Keyset
from gateways.stores.postgres import Pool
from gateways.stores.sealing import open_bytes, place, seal_bytes

#: Seconds that a ticket can be used in, and as many that a consent may take.
LIFE_SECONDS: Final = 600
#: Seconds that our own page can be used in.
SESSION_SECONDS: Final = 1800
#: Of what has lapsed, how much is removed whenever something new is kept.
REMOVED: Final = 20

ISSUE: Final = """
with old as (delete from connect_tickets where ticket_hash in (
    select ticket_hash from connect_tickets where expires_at < now() order by expires_at limit $6 for update skip locked))
insert into connect_tickets (ticket_hash, account, user_id, provider, sealed, expires_at)
values ($1, $2, $3, $4, $5, now() + $7 * interval '1 second')
"""
USE: Final = """
update connect_tickets set used_at = now() where ticket_hash = $1 and used_at is null and expires_at > now()
returning account, user_id, provider, sealed
"""
BEGIN: Final = """
with old as (delete from consents where state_hash in (
    select state_hash from consents where expires_at < now() order by expires_at limit $5 for update skip locked))
insert into consents (state_hash, browser_hash, provider, sealed, expires_at)
values ($1, $2, $3, $4, now() + $6 * interval '1 second')
"""
TAKE: Final = """
update consents set used_at = now()
where state_hash = $1 and browser_hash = $2 and provider = $3 and used_at is null and expires_at > now() returning sealed
"""
OPEN: Final = """
with old as (delete from connect_sessions where session_hash in (
    select session_hash from connect_sessions where expires_at < now() order by expires_at limit $5 for update skip locked))
insert into connect_sessions (session_hash, account, user_id, return_url, expires_at)
values ($1, $2, $3, $4, now() + $6 * interval '1 second')
"""
GET: Final = """
select account, user_id, return_url from connect_sessions where session_hash = $1 and expires_at > now()
"""
#: What is remembered, and the key of each.
TABLES: Final = {"connect_tickets": "ticket_hash", "consents": "state_hash", "connect_sessions": "session_hash"}
#: Rows that one statement of a cleanup deletes, so that it ends in time however many there are.
CLEANED: Final = 5000
LAPSED: Final = tuple(
    f"""
with old as (delete from {table} where {key} in (
    select {key} from {table} where expires_at < now() order by expires_at limit $1 for update skip locked) returning 1)
select count(*) from old
"""  # noqa: S608 - names of our own
    for table, key in TABLES.items()
)
OF_USER: Final = """
with tickets as (delete from connect_tickets where user_id = $1) delete from connect_sessions where user_id = $1
"""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to connect a mailbox for this user; `provider` is None where the user may choose. `said`: what it came with."""

    account: str
    user: str
    provider: str | None
    said: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """A user at our own page."""

    account: str
    user: str
    return_url: str | None


class Tickets:
    """One-use tickets. Everything raises what Postgres raises."""

    def __init__(self, pool: Pool, keyset: Keyset, *, life_seconds: int = LIFE_SECONDS) -> None:
        self._pool = pool
        self._key = keyset.sealing_key("consent")
        self._life_seconds = life_seconds

    async def issue(self, *, account: str, user: str, provider: str | None, said: dict[str, Any]) -> str:
        """A ticket as a browser carries it; what it stands for is JSON."""
        raw = _new()
        sealed = _sealed(self._key, said, "ticket", _hash(raw))
        await self._pool.execute(ISSUE, _hash(raw), account, user, provider, sealed, REMOVED, self._life_seconds)
        return raw

    async def use(self, raw: str) -> Ticket | None:
        """What it stands for, once; None for what is unknown, used or too old."""
        row = await self._pool.fetchrow(USE, _hash(raw))
        if row is None:
            return None
        said = _opened(self._key, row["sealed"], "ticket", _hash(raw))
        return Ticket(row["account"], row["user_id"], row["provider"], said)


class Consents:
    """Consents under way at a provider. Everything raises what Postgres raises."""

    def __init__(self, pool: Pool, keyset: Keyset, *, life_seconds: int = LIFE_SECONDS) -> None:
        self._pool = pool
        self._key = keyset.sealing_key("consent")
        self._life_seconds = life_seconds

    async def begin(self, state: str, *, provider: str, said: dict[str, Any]) -> str:
        """Remembers one until its browser is back, and answers what that browser has to bring along beside the state."""
        browser = _new()
        sealed = _sealed(self._key, said, "consent", _hash(state))
        await self._pool.execute(BEGIN, _hash(state), _hash(browser), provider, sealed, REMOVED, self._life_seconds)
        return browser

    async def take(self, state: str, *, browser: str, provider: str) -> dict[str, Any] | None:
        """What was said at its beginning, once, to this browser coming back from this provider."""
        sealed = await self._pool.fetchval(TAKE, _hash(state), _hash(browser), provider)
        return None if sealed is None else _opened(self._key, sealed, "consent", _hash(state))


class Sessions:
    """Users at our own page. Everything raises what Postgres raises."""

    def __init__(self, pool: Pool, *, life_seconds: int = SESSION_SECONDS) -> None:
        self._pool = pool
        self._life_seconds = life_seconds

    async def open(self, *, account: str, user: str, return_url: str | None) -> str:
        """A session as a browser's cookie carries it."""
        raw = _new()
        await self._pool.execute(OPEN, _hash(raw), account, user, return_url, REMOVED, self._life_seconds)
        return raw

    async def get(self, raw: str) -> Session | None:
        """Whose session it is; None where it is unknown or over."""
        row = await self._pool.fetchrow(GET, _hash(raw))
        return Session(*row) if row else None


class ConnectCleanup:
    """Deletes what is no longer needed of all three. Everything raises what Postgres raises.

    Whose a consent is stands sealed in it: it goes by time alone.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def delete_user(self, user: str) -> None:
        """The tickets and sessions of this user."""
        await self._pool.execute(OF_USER, user)

    async def delete_lapsed(self) -> None:
        """Everything whose time is over."""
        for statement in LAPSED:
            while await self._pool.fetchval(statement, CLEANED) == CLEANED:
                pass


def _new() -> str:
    return secrets.token_urlsafe(32)


def _hash(raw: str) -> str:
    return sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def _sealed(key: bytes, said: dict[str, Any], kind: str, name: str) -> bytes:
    return seal_bytes(key, orjson.dumps(said), place(kind, name, "said"))


def _opened(key: bytes, sealed: bytes, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(open_bytes(key, sealed, place(kind, name, "said")))
    return found
