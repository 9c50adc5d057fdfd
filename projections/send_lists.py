"""Questions to the tables of sends."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.fields import Sealed

Pool = asyncpg.Pool

ROW: Final = (
    "send, user_id, owner, status, message, blob, callback, attachments, recipients, size, named, connection, provider, "
    "created_at, scheduled_at, next_at, sent_at, ended_at, code, provider_message_id, thread_id, attempt, partition, position"
)


@dataclass(frozen=True, slots=True)
class SendRow:
    """One send. `message` is sealed under the user's data key for `place("send", send, "message")`, or in `blob` likewise.

    `status` is `scheduled`, `queued`, `sending`, `deferred`, `sent`, `failed`, `cancelled`, `uncertain` or `dead_lettered`;
    `code` says why, where there is something to explain. `attempt` is the number of the last one, 0 where there was none.
    """

    send: str
    user: str
    owner: str
    status: str
    message: Sealed | None
    blob: str | None
    callback: Sealed | None
    attachments: list[str]
    recipients: int
    size: int
    named: str | None
    connection: str | None
    provider: str | None
    created_at: datetime
    scheduled_at: datetime | None
    next_at: datetime | None
    sent_at: datetime | None
    ended_at: datetime | None
    code: str | None
    provider_message_id: str | None
    thread_id: str | None
    attempt: int
    partition: int
    position: int


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt. `outcome` is `running`, `accepted`, `deferred`, `in_doubt` or `failed`; `refused` JSON of recipients."""

    send: str
    number: int
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    code: str | None
    counted: bool | None
    said: Sealed | None
    refused: str | None


#: Users are folded from another topic: one who was deleted has no sends that anybody may see.
USER_IS_THERE: Final = "exists (select from users u where u.user_id = sends.user_id and u.deleted_at is null)"


async def by_id(pool: "Pool[Any]", owner: str, send: str) -> SendRow | None:
    """The account's send of this id, whose user has not been deleted."""
    row = await pool.fetchrow(
        f"select {ROW} from sends where send = $1 and owner = $2 and {USER_IS_THERE}",  # noqa: S608 - names of our own
        send,
        owner,
    )
    return SendRow(*row) if row else None


async def is_hidden(pool: "Pool[Any]", owner: str, send: str) -> bool:
    """Whether the account asked for a send of this id whose user has been deleted since."""
    found: bool = await pool.fetchval(
        f"select exists (select from sends where send = $1 and owner = $2 and not {USER_IS_THERE})",  # noqa: S608 - names of our own
        send,
        owner,
    )
    return found


async def of_account(
    pool: "Pool[Any]",
    owner: str,
    *,
    user: str | None = None,
    statuses: Sequence[str] | None = None,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[SendRow]:
    """Sends of the account, or of one of its users, the newest first: those before the one named `before`."""
    # A filter that is not asked for does not stand in the query: Postgres would plan it anew each time.
    asked = {"user_id = ": user, "status = any(": statuses, "send < ": before}
    filters = {condition: value for condition, value in asked.items() if value is not None}
    conditions = "".join(
        f" and {condition}${number}{')' if condition.endswith('(') else ''}"
        for number, condition in enumerate(filters, 4)
    )
    rows = await pool.fetch(
        f"select {ROW} from sends where owner = $1 and {USER_IS_THERE}{conditions} "  # noqa: S608 - names of our own
        "order by send desc limit $2 offset $3",
        owner,
        limit,
        offset,
        *filters.values(),
    )
    return [SendRow(*row) for row in rows]


async def attempts_of(pool: "Pool[Any]", sends: Sequence[str]) -> dict[str, list[AttemptRow]]:
    """Attempts by send, in their order."""
    rows = await pool.fetch(
        "select send, number, started_at, ended_at, outcome, code, counted, said, refused from send_attempts "
        "where send = any($1) order by send, number",
        sends,
    )
    found: dict[str, list[AttemptRow]] = {}
    for row in rows:
        found.setdefault(row["send"], []).append(AttemptRow(*row))
    return found
