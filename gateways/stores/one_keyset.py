"""One database, one keyset: with another one every role stops before it seals, or hands out, anything under it.

With a keyset of another installation nothing that is sealed could be opened, no session token would hold and no address be
found, while new mailboxes worked: two halves that no keyset opens together. So the database remembers a fingerprint.

The same holds for an old copy of the right file, from before keys were rotated: it has not the key that wraps.
"""

from pathlib import Path
from typing import Final

from gateways.stores.key_rotation import NEWEST, OUTDATED
from gateways.stores.keyset import Keyset, KeysetError
from gateways.stores.postgres import Pool
from gateways.stores.sealing import Unsealable

REMEMBERED: Final = "select keyset from installation"
#: Whoever is first: a second one's does not count.
REMEMBER: Final = "insert into installation (keyset) values ($1) on conflict do nothing"


async def check_keyset(pool: Pool, keyset: Keyset, path: Path) -> None:
    """Returns where this is the keyset the database was made with, or the first it sees, and has the newest key of it.

    Raises KeysetError, and what Postgres raises.
    """
    remembered = await pool.fetchval(REMEMBERED)
    if remembered is None and await _opens_what_is_there(pool, keyset):
        await pool.execute(REMEMBER, keyset.fingerprint)
        remembered = await pool.fetchval(REMEMBERED)
    if remembered != keyset.fingerprint:
        raise KeysetError(
            f"{path} is not the keyset that this database was made with, and no other one opens what is sealed in it: "
            f"restore the right file from your backup (POSTLEDGER_KEYSET says where it is looked for), or start with an "
            f"empty Kafka and an empty database."
        )
    newest = await pool.fetchval(NEWEST)
    if newest is not None and not keyset.has(newest):
        raise KeysetError(OUTDATED.format(key=newest))


async def _opens_what_is_there(pool: Pool, keyset: Keyset) -> bool:
    """A database that remembers no keyset, being from before that was kept, may have been made with another."""
    row = await pool.fetchrow("select kid, wrapped, subject from keyring where kid like 'local-%' limit 1")
    if row is None:
        return True
    try:
        keyset.unwrap(row["kid"], row["wrapped"], row["subject"])
    except (KeysetError, Unsealable):
        return False
    return True
