"""Users' connections: whose mailbox each is, what state it is in, and when its token is due."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.connection_events import (
    ConnectionAuthorised,
    ConnectionRestored,
    ConnectionRevoked,
    Provider,
    ReauthorisationRequired,
    RevocationRequested,
    TokenRefreshed,
    TokenRefreshFailed,
    TokenUsed,
)
from domain.fields import Digest, Sealed
from projections.in_order import change_in_order
from projections.projection import Connection, Folded, Projection
from schemas import topics

DDL: Final = """
create table connections (
    connection text primary key,
    user_id text not null,
    owner text not null,
    provider text not null,
    auth text not null,
    account text not null,
    account_digest text not null,
    subject_digest text,
    scopes text[] not null,
    missing_scopes text[] not null,
    state text not null,
    token_version integer not null,
    token_fingerprint text not null,
    token_expires_at timestamptz,
    connected_at timestamptz not null,
    last_used_at timestamptz,
    last_error text,
    last_error_at timestamptz,
    revoked_at timestamptz,
    at_provider text,
    refresh_due timestamptz,
    partition integer not null,
    position bigint not null
);
create index connections_user on connections (user_id, provider, account_digest);
create index connections_owner on connections (owner, connection desc);
create index connections_due on connections (refresh_due) where refresh_due is not null;
"""
ROW: Final = (
    "connection, user_id, owner, provider, auth, account, account_digest, subject_digest, scopes, missing_scopes, state, "
    "token_version, "
    "token_expires_at, connected_at, last_used_at, last_error, last_error_at, partition, position"
)
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One connection. `account` is its mailbox's address, sealed under the user's data key; `last_error` a code.

    `state` is `active`, `reauth_required` or `revoked`.
    """

    connection: str
    user: str
    owner: str
    provider: Provider
    auth: str
    account: Sealed
    account_digest: Digest
    subject_digest: Digest | None
    scopes: list[str]
    missing_scopes: list[str]
    state: str
    token_version: int
    token_expires_at: datetime | None
    connected_at: datetime
    last_used_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    partition: int
    position: int


async def _fold(connection: "Connection[Any]", events: list[Folded]) -> None:
    """One event after the other: a connection goes from state to state and back, and the order of its life is the log's."""
    await change_in_order(connection, ((seen.event.connection, *_statement(seen)) for seen in events))


#: A refresh may have been reported before the connecting that its token goes back to: the newer token's facts stay.
AUTHORISED: Final = """
insert into connections (connection, user_id, owner, provider, auth, account, account_digest, subject_digest, scopes,
    missing_scopes, state, token_version, token_fingerprint, token_expires_at, connected_at, refresh_due, partition, position)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'active', $11, $12, $13, $14, $15, $16, $17)
on conflict (connection) do update set auth = excluded.auth, account = excluded.account, scopes = excluded.scopes,
    subject_digest = coalesce(excluded.subject_digest, connections.subject_digest),
    missing_scopes = excluded.missing_scopes, state = 'active', connected_at = excluded.connected_at, last_error = null,
    last_error_at = null, token_version = greatest(connections.token_version, excluded.token_version),
    token_fingerprint = case when connections.token_version > excluded.token_version
        then connections.token_fingerprint else excluded.token_fingerprint end,
    token_expires_at = case when connections.token_version > excluded.token_version
        then connections.token_expires_at else excluded.token_expires_at end,
    refresh_due = case when connections.token_version > excluded.token_version
        then coalesce(connections.refresh_due, excluded.refresh_due) else excluded.refresh_due end
"""
REFRESHED: Final = """
update connections set token_version = $2, token_fingerprint = $3, token_expires_at = $4, refresh_due = $5,
    state = 'active', last_error = null, last_error_at = null where connection = $1
"""
FAILED: Final = "update connections set last_error = $2, last_error_at = $3, refresh_due = $4 where connection = $1"
#: The provider refuses what it gives: a new token is news of the token only, and the next is got for a call, if at all.
RENEWED: Final = """
update connections set token_version = $2, token_fingerprint = $3, token_expires_at = $4 where connection = $1
"""
REQUIRED: Final = """
update connections set state = 'reauth_required', last_error = $2, last_error_at = $3, refresh_due = null
where connection = $1
"""
#: What expires is refreshed at once: it was not, as long as it was refused.
RESTORED: Final = """
update connections set state = 'active', last_error = null, last_error_at = null,
    refresh_due = case when token_expires_at is not null then $2::timestamptz end where connection = $1
"""
REVOKING: Final = """
update connections set state = 'revoked', revoked_at = $2, refresh_due = null where connection = $1
"""
REVOKED: Final = "update connections set at_provider = $2 where connection = $1"
USED: Final = "update connections set last_used_at = greatest(last_used_at, $2) where connection = $1"


def _statement(seen: Folded) -> tuple[str, tuple[Any, ...]]:  # noqa: PLR0911 - one return for each event
    event = seen.event
    match event:
        case ConnectionAuthorised():
            return AUTHORISED, _authorised(seen)
        case TokenRefreshed():
            token = (event.connection, event.version, event.fingerprint, event.expires_at)
            return (RENEWED, token) if event.refused_at_calls else (REFRESHED, (*token, event.refresh_at))
        case TokenRefreshFailed():
            return FAILED, (event.connection, event.code, seen.at, event.next_at)
        case ReauthorisationRequired():
            return REQUIRED, (event.connection, event.code, seen.at)
        case ConnectionRestored():
            return RESTORED, (event.connection, seen.at)
        case RevocationRequested():
            return REVOKING, (event.connection, seen.at)
        case ConnectionRevoked():
            return REVOKED, (event.connection, event.at_provider)
        case TokenUsed():
            return USED, (event.connection, max(call.at for call in event.calls))
        case _:
            raise TypeError(type(event).__name__)


def _authorised(seen: Folded) -> tuple[Any, ...]:
    event = seen.event
    return (
        event.connection,
        event.user,
        event.owner,
        event.provider,
        event.auth,
        event.account,
        event.account_digest,
        event.subject_digest,
        event.scopes,
        event.missing_scopes,
        event.token.version,
        event.token.fingerprint,
        event.token.expires_at,
        seen.at,
        event.refresh_at,
        seen.partition,
        seen.position,
    )


PROJECTION: Final = Projection(
    name="connections",
    topic=topics.CONNECTION_EVENTS.name,
    tables=("connections",),
    ddl=DDL,
    folds={
        (
            ConnectionAuthorised,
            TokenRefreshed,
            TokenRefreshFailed,
            ReauthorisationRequired,
            ConnectionRestored,
            RevocationRequested,
            ConnectionRevoked,
            TokenUsed,
        ): _fold
    },
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#: Users are folded from another topic: one who was deleted may have connections that nobody has ended yet.
USER_IS_THERE: Final = "exists (select from users u where u.user_id = connections.user_id and u.deleted_at is null)"


async def by_id(pool: "Pool[Any]", owner: str, connection: str) -> ConnectionRow | None:
    """The account's connection of this id, revoked or not, whose user has not been deleted."""
    row = await pool.fetchrow(
        f"select {ROW} from connections where connection = $1 and owner = $2 and {USER_IS_THERE}",  # noqa: S608 - names of our own
        connection,
        owner,
    )
    return ConnectionRow(*row) if row else None


async def of_mailbox(pool: "Pool[Any]", user: str, provider: Provider, account_digest: Digest) -> ConnectionRow | None:
    """The user's connection of this mailbox, where there is one that is not revoked."""
    row = await pool.fetchrow(
        f"select {ROW} from connections where user_id = $1 and provider = $2 and account_digest = $3 "  # noqa: S608 - names of our own
        "and state <> 'revoked'",
        user,
        provider,
        account_digest,
    )
    return ConnectionRow(*row) if row else None


async def is_connected(pool: "Pool[Any]", provider: Provider, account_digest: Digest) -> bool:
    """Whether anybody of this installation has a connection of this mailbox that is not revoked."""
    found: bool = await pool.fetchval(
        "select exists (select from connections where provider = $1 and account_digest = $2 and state <> 'revoked')",
        provider,
        account_digest,
    )
    return found


async def of_account(
    pool: "Pool[Any]",
    owner: str,
    *,
    user: str | None = None,
    provider: str | None = None,
    states: list[str],
    limit: int,
    before: str | None = None,
) -> list[ConnectionRow]:
    """Connections of the account, or of one of its users, the newest first: those made before the one named `before`."""
    # A filter that is not asked for does not stand in the query: Postgres would plan it anew each time.
    asked = {"user_id = ": user, "provider = ": provider, "connection < ": before}
    filters = {condition: value for condition, value in asked.items() if value is not None}
    conditions = "".join(f" and {condition}${number}" for number, condition in enumerate(filters, 4))
    rows = await pool.fetch(
        f"select {ROW} from connections where owner = $1 and state = any($2) and {USER_IS_THERE}{conditions} "  # noqa: S608 - names of our own
        "order by connection desc limit $3",
        owner,
        states,
        limit,
        *filters.values(),
    )
    return [ConnectionRow(*row) for row in rows]
