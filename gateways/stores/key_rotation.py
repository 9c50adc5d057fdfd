"""Key rotation: every data key is wrapped anew by a new key-encryption key, while all goes on (faults K16, M-04).

    a new key wraps → every row is wrapped by it, batch by batch → the earlier keys only open → it is reported

Each step can be done twice, so whoever was killed is followed by the next to ask, who goes on from there. A row is exchanged
only where it still is as it was read, and one that somebody else is changing is left for the next pass: rotating waits for
nobody's row, and takes none back. What is sealed under the data keys stays as it is.

Processes notice the new key within a second (`keyset.LOOK_SECONDS`), and a statement may be a few seconds under way: rows
wrapped by the earlier key may still come in for as long, and the last pass is made after that. One that comes even later, out
of a process that stood still, can be opened by the disabled key, and is wrapped anew by the next rotation (`is_due`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from gateways.stores import keyset_file
from gateways.stores.keyset import LOOK_SECONDS, Keyset, KeysetAway, KeysetError
from gateways.stores.kms import KeyEncryption, KeyKeeper
from gateways.stores.postgres import ANSWER_SECONDS, Pool
from gateways.stores.sealing import Unsealable, new_data_key

#: Rows wrapped anew in one statement.
BATCH: Final = 500
#: Seconds after which nobody wraps by the earlier key any more.
SETTLE_SECONDS: Final = LOOK_SECONDS + ANSWER_SECONDS
#: How often that is waited for: whoever still wraps by it then does not know of the new one. At Azure a new version is asked
#: for once in a minute (`kms_azure.NEWEST_SECONDS`).
SETTLED_AT_LAST: Final = 15
#: Seconds that a look through a whole table may take.
SCAN_SECONDS: Final = 600.0
#: How long a key is kept that only opens: no process stands still for so long and goes on.
KEPT: Final = timedelta(days=1)
#: One rotation at a time.
LOCK: Final = 7_302_941_119
#: The tables that hold wrapped data keys, and whose each is.
TABLES: Final = {"keyring": "subject", "vault": "connection"}

#: The key towards which keys were rotated last, of those in the keyset file.
NEWEST: Final = (
    f"select key from key_rotations where key like '{keyset_file.LOCAL_KID}%' order by began_at desc limit 1"  # noqa: S608 - a name of our own
)
OUTDATED: Final = (
    "The keyset file has no key {key}, by which data keys are wrapped: it is a copy from before keys were rotated. Every "
    "process must read the same file: put the newest one in its place, from the machine where keys were rotated or from "
    "your backup (POSTLEDGER_KEYSET says where it is looked for)."
)
BEGIN: Final = """
insert into key_rotations (key) values ($1) on conflict (key) do update set rows = 0, began_at = now(), finished_at = null
    where key_rotations.finished_at is not null
"""
#: What was begun towards a key that is not the one any more, by an earlier setting.
DROP: Final = "delete from key_rotations where finished_at is null and key <> $1"
#: A statement for each table; rows that somebody has locked are skipped, so that no two ever wait for each other.
EXCHANGE: Final = """
with new as (select * from unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[]) as n (subject, old, kid, wrapped)),
mine as (select t.{subject} as subject, n.kid, n.wrapped from {table} t
    join new n on n.subject = t.{subject} and n.old = t.wrapped order by 1 for update of t skip locked),
done as (update {table} t set kid = mine.kid, wrapped = mine.wrapped from mine where t.{subject} = mine.subject returning 1)
update key_rotations set rows = rows + (select count(*) from done) where key = $5 returning (select count(*) from done)
"""


class RotationUnderWay(Exception):
    """Somebody else is rotating keys at this moment."""


class NotAllWrapped(Exception):
    """Some rows are still wrapped by an earlier key, and will be; the sentence says which and why. Nothing was retired."""


class _AnotherKey(Exception):
    """Whoever makes the keys has just made one."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """Everything is wrapped under `key`: so many rows were wrapped anew for that since it began, by whomever."""

    key: str
    rows: int
    began_at: datetime
    finished_at: datetime


async def is_due(pool: Pool, keys: KeyKeeper, *, max_age: timedelta) -> bool:
    """Whether to rotate: the key is too old, rows are wrapped by another one, or a rotation was cut short.

    Raises what Postgres and `KeyEncryption` raise.
    """
    if keys.is_older_than(max_age) or keys.is_between_keys():
        return True
    key = await _key(keys)
    unfinished = "select exists(select from key_rotations where key = $1 and finished_at is null)"
    return bool(await pool.fetchval(unfinished, key)) or await _has_others(pool, key)


async def rotate(
    pool: Pool,
    keys: KeyKeeper,
    *,
    report: Callable[[Rotated], Awaitable[None]],
    older_than: timedelta = timedelta(0),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    settle_seconds: float = SETTLE_SECONDS,
    batch: int = BATCH,
) -> Rotated:
    """Rotates, or ends a rotation that was cut short. A new key is made where the present one is `older_than` this.

    `progress` hears of rows done and rows in all. `report` may be asked twice for one rotation, with the same `began_at`.
    Raises RotationUnderWay, NotAllWrapped, and what Postgres and `KeyEncryption` raise; ask again then.
    """
    async with _alone(pool) as connection:
        while True:
            key = await _begin(connection, keys, older_than)
            wrapping = _Wrapping(connection, keys, key, progress, batch)
            try:
                await wrapping.until_settled(settle_seconds)
                break
            except _AnotherKey:
                continue
        await keys.retire()
        row = await connection.fetchrow("select key, rows, began_at, now() from key_rotations where key = $1", key)
        rotated = Rotated(*row)
        await report(rotated)
        await connection.execute("update key_rotations set finished_at = $2 where key = $1", key, rotated.finished_at)
        return rotated


async def forget_unused(pool: Pool, keyset: Keyset, *, disabled_for: timedelta = KEPT) -> list[str]:
    """Destroys the keys of the keyset file that were disabled so long ago and that no row needs; their ids.

    A backup of the database from before they were disabled can't be used any more then. Raises RotationUnderWay,
    KeysetError, and what Postgres raises.
    """
    async with _alone(pool) as connection:
        disabled = keyset.disabled_for(disabled_for)
        used = set()
        for table in TABLES:
            asked = f"select distinct kid from {table} where kid = any($1)"  # noqa: S608 - names of our own
            used |= {row["kid"] for row in await connection.fetch(asked, disabled)}
        unused = [kid for kid in disabled if kid not in used]
        if unused:
            keyset_file.remove(keyset.path, set(unused))
            keyset.look()
        return unused


@dataclass(slots=True)
class _Wrapping:
    """Wraps by one key what any other has wrapped."""

    connection: Any
    keys: KeyEncryption
    key: str
    progress: Callable[[int, int], None]
    batch: int
    unopenable: dict[str, str] = field(default_factory=dict)

    async def until_settled(self, settle_seconds: float) -> None:
        """Until a pass finds nothing that was made after everybody knows the key. Raises NotAllWrapped, _AnotherKey."""
        settled = False
        for _ in range(SETTLED_AT_LAST):
            done = await self.wrap_all()
            if self.unopenable:
                subject, cause = next(iter(self.unopenable.items()))
                raise NotAllWrapped(
                    f"{len(self.unopenable)} data keys can't be opened, so they can't be wrapped anew; the first is that of "
                    f"{subject}: {cause}"
                )
            if not done and settled:
                return
            await asyncio.sleep(settle_seconds)
            settled = True
        raise NotAllWrapped(
            "Somebody goes on wrapping by an earlier key: does every process read the same keyset file, and have the same "
            "POSTLEDGER_KMS?"
        )

    async def wrap_all(self) -> int:
        """Passes over all tables until nothing is left that can be opened: how many rows they wrapped."""
        done = 0
        while (left := await self._left()) > len(self.unopenable):
            made = await self._pass(left)
            done += made
            if not made:
                await asyncio.sleep(0.1)  # all that is left is in somebody's hands
        return done

    async def _left(self) -> int:
        counted = " + ".join(f"(select count(*) from {table} where kid <> $1)" for table in TABLES)  # noqa: S608 - as above
        left: int = await self.connection.fetchval(f"select {counted}", self.key, timeout=SCAN_SECONDS)
        return left

    async def _pass(self, left: int) -> int:
        """One row after the other, each once: how many."""
        seen = done = 0
        self.unopenable.clear()
        for table, subject in TABLES.items():
            asked = (
                f"select {subject} as subject, kid, wrapped from {table} where kid <> $1 and {subject} > $2 "  # noqa: S608 - as above
                "order by 1 limit $3"
            )
            after = ""
            while rows := await self.connection.fetch(asked, self.key, after, self.batch, timeout=SCAN_SECONDS):
                done += await self._exchange(table, rows)
                seen, after = seen + len(rows), rows[-1]["subject"]
                self.progress(seen, max(seen, left))
        return done

    async def _exchange(self, table: str, rows: list[Any]) -> int:
        """These rows, where they still are as they were read: how many."""
        found = await asyncio.gather(*[self._wrapped(row) for row in rows])
        new = [(row["subject"], row["wrapped"], *each) for row, each in zip(rows, found, strict=True) if each]
        if not new:
            return 0
        exchange = EXCHANGE.format(table=table, subject=TABLES[table])
        columns = [list(column) for column in zip(*new, strict=True)]
        done: int = await self.connection.fetchval(exchange, *columns, self.key)
        if set(columns[2]) != {self.key}:
            raise _AnotherKey
        return done

    async def _wrapped(self, row: Any) -> tuple[str, bytes] | None:
        try:
            data_key = await self.keys.unwrap(row["kid"], row["wrapped"], row["subject"])
        except KeysetAway:
            raise  # nothing is known of its keys
        except (Unsealable, KeysetError) as error:
            self.unopenable[row["subject"]] = str(error) if isinstance(error, KeysetError) else "it was changed"
            return None
        return await self.keys.wrap(data_key, row["subject"])


@asynccontextmanager
async def _alone(pool: Pool) -> AsyncIterator[Any]:
    """A connection that nobody else rotates beside, for as long as it lives: it ends with the process."""
    async with pool.acquire() as connection:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
            raise RotationUnderWay("Keys are being rotated at this moment, by another process: let it finish.")
        try:
            yield connection
        finally:
            try:
                await connection.execute("select pg_advisory_unlock($1)", LOCK)
            except BaseException:
                connection.terminate()  # and the lock with it
                raise


async def _begin(connection: Any, keys: KeyKeeper, older_than: timedelta) -> str:
    """The key that rows are to be wrapped by: of the rotation that was cut short, or a new one.

    Raises KeysetError where ours are keys from before: another new one, in another file, would make two halves of them.
    """
    newest = await connection.fetchval(NEWEST)
    if newest is not None and keys.has_lost(newest):
        raise KeysetError(OUTDATED.format(key=newest))
    unfinished = [
        row["key"] for row in await connection.fetch("select key from key_rotations where finished_at is null")
    ]
    if await _key(keys) not in unfinished and not keys.is_between_keys() and keys.is_older_than(older_than):
        await keys.renew()
    key = await _key(keys)
    await connection.execute(DROP, key)
    await connection.execute(BEGIN, key)
    return key


async def _key(keys: KeyEncryption) -> str:
    """The id of the key that wraps at this moment, as it says itself."""
    return (await keys.wrap(new_data_key(), "rotation"))[0]


async def _has_others(pool: Pool, key: str) -> bool:
    """By two looks into an index each: a comparison by "is not" would read it whole."""
    asked = " or ".join(f"exists(select from {table} where kid {sign} $1)" for table in TABLES for sign in "<>")
    return bool(await pool.fetchval(f"select {asked}", key))
