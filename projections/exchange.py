"""Putting rebuilt tables in the place of the live ones, in the transaction the caller has begun.

Readers and projectors wait while it is committed, for milliseconds. Postgres then plans their prepared statements anew by
the tables' names; none of them sees the old rows, none an empty table. Nobody waits behind us for long either: where a
reader keeps a table for more than half a second we give up and are called again.
"""

from collections.abc import Sequence
from typing import Any, Final

from projections.projection import Connection

#: Below Postgres's own second after which it looks for deadlocks: whoever is caught in one, it is us who steps back.
LOCK_TIMEOUT: Final = "500ms"


async def exchange(connection: "Connection[Any]", tables: Sequence[str], *, live: str, rebuilt: str) -> None:
    """Drops the live tables and moves the rebuilt ones there, with their indexes; what was granted stays granted.

    Raises LockNotAvailableError where a table is in use.
    """
    await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    there = [
        table for table in tables if await connection.fetchval("select to_regclass($1) is not null", f"{live}.{table}")
    ]
    if there:
        await connection.execute(
            f"lock table {', '.join(f'{live}.{table}' for table in there)} in access exclusive mode"
        )
    grants = [grant for table in there for grant in await _grants(connection, live, table)]
    for table in there:
        await connection.execute(f"drop table {live}.{table}")
    for table in tables:
        await connection.execute(f"alter table {rebuilt}.{table} set schema {live}")
    for grant in grants:
        await connection.execute(grant)
    await connection.execute(f"drop schema {rebuilt}")


async def _grants(connection: "Connection[Any]", schema: str, table: str) -> list[str]:
    """What others were allowed on a table, as statements that allow it again."""
    rows = await connection.fetch(
        "select format('grant %s on %I.%I to %s', a.privilege_type, $1::text, $2::text, "
        "case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end) "
        "from pg_class c, aclexplode(c.relacl) a where c.oid = to_regclass(format('%I.%I', $1::text, $2::text)) "
        "and a.grantee <> c.relowner",
        schema,
        table,
    )
    return [row[0] for row in rows]
