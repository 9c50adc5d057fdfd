"""Which mail an idempotency key names before anything is decided on it, over all processes: whoever repeats the request while
nobody decides is told of the same mail as the first. What has been decided stands in the tables, for ever.
"""

from typing import Final

from domain.fields import Digest
from gateways.stores.postgres import Pool

#: Of what is older, how much is removed whenever something new is kept.
REMOVED: Final = 20

NAME: Final = """
with old as (delete from send_keys where key_digest in (
    select key_digest from send_keys where at < now() - $3 * interval '1 second' and key_digest <> $1
    order by at limit $4 for update skip locked))
insert into send_keys as k (key_digest, send) values ($1, $2)
on conflict (key_digest) do update set at = now(),
    send = case when k.at < now() - $3 * interval '1 second' then excluded.send else k.send end
returning send
"""


async def named(pool: Pool, key: Digest, send: str, *, seconds: float) -> str:
    """The mail that this key names, which is `send` where it named none for so many seconds. Raises what Postgres raises."""
    found: str = await pool.fetchval(NAME, key, send, seconds, REMOVED)
    return found
