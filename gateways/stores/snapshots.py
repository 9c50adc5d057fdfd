"""Where deciders write their folds behind: one monotonic statement for each snapshot.

Two deciders of one partition may save at once. A statement sees the rows that were there when it began, so one that began
before the other's commit would leave what that one has just written and should be gone: each takes the checkpoint's lock
first, in a statement of its own.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from gateways.stores.postgres import Pool, answered
from schemas.snapshots import Checkpoint

# What is locked has to be there: a first snapshot makes its checkpoint, which counts for nothing yet. A process that freezes
# with the lock keeps it no longer than this: its successor has to write snapshots.
BEGUN = """
with begun as (
    insert into decider_checkpoints (context, partition, events_end, inputs, now_ms) values ($1, $2, 0, '{}', 0)
    on conflict (context, partition) do nothing)
select set_config('idle_in_transaction_session_timeout', '3s', true)
"""
LOCK = "select from decider_checkpoints where context = $1 and partition = $2 for update"

SAVE = """
with moved as (
    insert into decider_checkpoints as c (context, partition, events_end, inputs, now_ms) values ($1, $2, $3, $4, $5)
    on conflict (context, partition) do update
        set events_end = excluded.events_end, inputs = excluded.inputs, now_ms = excluded.now_ms, at = now()
        where c.events_end < excluded.events_end
    returning 1),
forgotten as (
    delete from decider_state s using unnest($9::text[]) as f(id)
    where cardinality($9::text[]) > 0 and s.context = $1 and s.partition = $2
        and s.id ~>=~ (f.id || '/') and s.id ~<~ (f.id || '0') and exists (select from moved)),
gone as (
    delete from decider_state s using unnest($10::text[], $11::text[]) as g(kind, id)
    where cardinality($10::text[]) > 0 and s.context = $1 and s.partition = $2
        and s.kind = g.kind and s.id = g.id and exists (select from moved)),
written as (
    insert into decider_state (context, partition, kind, id, document)
    select $1, $2, d.kind, d.id, d.document from unnest($6::text[], $7::text[], $8::text[]) as d(kind, id, document)
    where exists (select from moved)
    on conflict (context, partition, kind, id) do update set document = excluded.document)
select exists (select from moved)
"""

# LATERAL with OFFSET is one index look-up for each key, whatever the planner believes. A table that has just begun to grow
# has no statistics yet, and a join would read all of it for every key.
READ = """
select coalesce((select events_end from decider_checkpoints where context = $1 and partition = $2), 0) as ends,
    d.kind, d.id, d.document
from (select 1) one left join (
    unnest($3::text[], $4::text[]) as k(kind, id) cross join lateral (
        select s.kind, s.id, s.document from decider_state s
        where s.context = $1 and s.partition = $2 and s.kind = k.kind and s.id = k.id offset 0) d
) on true
"""


class Snapshots:
    """The documents of every context, and the checkpoints they are consistent with."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def checkpoint(self, context: str, partition: int) -> Checkpoint | None:
        row = await self._pool.fetchrow(
            "select events_end, inputs, now_ms from decider_checkpoints where context = $1 and partition = $2",
            context,
            partition,
        )
        return Checkpoint(row["events_end"], orjson.loads(row["inputs"]), row["now_ms"]) if row else None

    async def read(
        self, context: str, partition: int, keys: list[tuple[str, str]]
    ) -> tuple[int, dict[tuple[str, str], bytes]]:
        """The snapshot's end and the documents that are there, read in one statement and so consistent."""
        rows = await self._pool.fetch(
            READ,
            context,
            partition,
            [kind for kind, _ in keys],
            [found for _, found in keys],
        )
        documents = {(row["kind"], row["id"]): row["document"].encode() for row in rows if row["kind"] is not None}
        return rows[0]["ends"], documents

    async def save(
        self,
        context: str,
        partition: int,
        checkpoint: Checkpoint,
        changed: Mapping[tuple[str, str], bytes | None],
        forgotten: list[str],
    ) -> bool:
        """All or nothing; False where a snapshot of this end or a later one is there already."""
        kept = [(kind, found, body.decode()) for (kind, found), body in changed.items() if body is not None]
        gone = [key for key, body in changed.items() if body is None]
        inputs = orjson.dumps(dict(checkpoint.inputs)).decode()
        moved = (checkpoint.end, inputs, checkpoint.now_ms)
        saving = self._save(context, partition, *moved, *_columns(kept, 3), forgotten, *_columns(gone, 2))
        return bool(await answered(saving))

    async def _save(self, context: str, partition: int, *snapshot: Any) -> Any:
        async with self._pool.acquire() as connection, connection.transaction(isolation="read_committed"):
            await connection.execute(BEGUN, context, partition)
            await connection.execute(LOCK, context, partition)
            return await connection.fetchval(SAVE, context, partition, *snapshot)


def _columns(
    rows: list[tuple[str, ...]] | list[tuple[str, str]] | list[tuple[str, str, str]], width: int
) -> list[list[str]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
