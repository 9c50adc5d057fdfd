"""An account's users: those whose mailboxes may be connected."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.fields import Digest, Sealed
from domain.users import UserCreated, UserDeleted
from projections.projection import Connection, Folded, Projection, columns
from schemas import topics

DDL: Final = """
create table users (
    user_id text primary key,
    account text not null,
    email text,
    email_digest text not null,
    display_name text,
    external_id text,
    external_id_digest text,
    created_at timestamptz not null,
    deleted_at timestamptz,
    partition integer not null,
    position bigint not null
);
create index users_account on users (account, position desc) where deleted_at is null;
"""
ROW: Final = (
    "user_id, account, email, email_digest, display_name, external_id, external_id_digest, created_at, "
    "partition, position"
)
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class UserRow:
    """One user who has not been deleted; what is sealed is sealed under the user's own data key."""

    user: str
    account: str
    email: Sealed
    email_digest: Digest
    display_name: Sealed | None
    external_id: Sealed | None
    external_id_digest: Digest | None
    created_at: datetime
    partition: int
    position: int


async def _created(connection: "Connection[Any]", events: list[Folded]) -> None:
    rows = [
        (
            seen.event.user,
            seen.event.account,
            seen.event.email,
            seen.event.email_digest,
            seen.event.display_name,
            seen.event.external_id,
            seen.event.external_id_digest,
            seen.at,
            seen.partition,
            seen.position,
        )
        for seen in events
    ]
    await connection.execute(
        f"insert into users ({ROW}) select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], "  # noqa: S608 - names of our own
        "$6::text[], $7::text[], $8::timestamptz[], $9::int[], $10::bigint[])",
        *columns(rows),
    )


async def _deleted(connection: "Connection[Any]", events: list[Folded]) -> None:
    await connection.execute(
        "update users u set deleted_at = e.at, email = null, display_name = null, external_id = null "
        "from unnest($1::text[], $2::timestamptz[]) as e(user_id, at) where u.user_id = e.user_id",
        *columns([(seen.event.user, seen.at) for seen in events]),
    )


PROJECTION: Final = Projection(
    name="users",
    topic=topics.ACCOUNT_EVENTS.name,
    tables=("users",),
    ddl=DDL,
    folds={(UserCreated,): _created, (UserDeleted,): _deleted},
)


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def by_id(pool: "Pool[Any]", account: str, user: str) -> UserRow | None:
    """The account's user of this id."""
    row = await pool.fetchrow(
        f"select {ROW} from users where user_id = $1 and account = $2 and deleted_at is null",  # noqa: S608 - names of our own
        user,
        account,
    )
    return UserRow(*row) if row else None


async def of_account(
    pool: "Pool[Any]",
    account: str,
    *,
    limit: int,
    before: int | None = None,
    email_digest: Digest | None = None,
    external_id_digest: Digest | None = None,
) -> list[UserRow]:
    """Users of the account, the newest first: those whose position is below `before`, and who have this address or id."""
    rows = await pool.fetch(
        f"select {ROW} from users where account = $1 and deleted_at is null and ($2::bigint is null or position < $2) "  # noqa: S608 - names of our own
        "and ($3::text is null or email_digest = $3) and ($4::text is null or external_id_digest = $4) "
        "order by position desc limit $5",
        account,
        before,
        email_digest,
        external_id_digest,
        limit,
    )
    return [UserRow(*row) for row in rows]
