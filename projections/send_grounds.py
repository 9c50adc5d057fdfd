"""What has to be known before a mail is asked to be sent, in one question: it is asked for every send."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.fields import Digest, Sealed
from domain.send_commands import KnownConnection

Pool = asyncpg.Pool
#: Seconds for which an idempotency key names the mail that was asked for first, though nothing is decided on it. Mails are
#: listed by their ids, which hold the time they were made at, so one must not come to be long after that.
NAMED_SECONDS: Final = 3600
#: One row for each connection that is not revoked, and one where there is none; no row at all without the user.
GROUNDS: Final = """
select u.display_name, k.send, s.send, s.body_digest, s.scheduled_at, s.partition, s.position,
    c.connection, c.provider, c.account_digest, c.state, c.last_error is not null and c.state = 'active'
from users u
left join sends s on s.key_digest = $3 and s.user_id = u.user_id
left join send_keys k on k.key_digest = $3 and k.at > now() - $4 * interval '1 second'
left join connections c on c.user_id = u.user_id and c.state <> 'revoked'
where u.user_id = $1 and u.account = $2 and u.deleted_at is null
order by c.connected_at desc, c.connection desc
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """The send that an idempotency key stands for, what was asked with it (`body`), and where that stands in the log."""

    send: str
    body: Digest
    scheduled_at: datetime | None
    partition: int
    position: int


@dataclass(frozen=True, slots=True)
class Grounds:
    """The user's name, sealed under their data key, what their idempotency key stands for, and their connections that are
    not revoked, the most recently connected first.

    `named` is the mail that the key names where it was asked for a moment ago, whether it stands for it by now or not.
    """

    display_name: Sealed | None
    named: str | None
    taken: Taken | None
    connections: list[KnownConnection] = field(default_factory=list)


async def grounds(pool: "Pool[Any]", account: str, user: str, key: Digest | None) -> Grounds | None:
    """None where the account has no such user."""
    rows = await pool.fetch(GROUNDS, user, account, key, NAMED_SECONDS)
    if not rows:
        return None
    display_name, named, *taken = tuple(rows[0])[:7]
    known = [KnownConnection(*tuple(row)[7:]) for row in rows if row["connection"] is not None]
    return Grounds(display_name, named, Taken(*taken) if taken[0] is not None else None, known)
