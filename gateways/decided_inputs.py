"""How far the inputs of a truth topic have been decided, as the topic itself proves it."""

from typing import Final

import orjson

from gateways.log.event_log import EventLog
from gateways.stores.postgres import Pool
from schemas.envelope import first
from schemas.inputs import fold_inputs

#: The snapshot that is furthest on; what it says of the inputs is the same for every version of a fold.
SNAPSHOT: Final = (
    "select events_end, inputs from decider_checkpoints where starts_with(context, $1) and partition = $2 "
    "order by events_end desc limit 1"
)


async def decided_inputs(log: EventLog, pool: Pool, truth: str, partition: int) -> tuple[dict[str, int], int]:
    """For each input the offset that is to be decided next, by the truth topic up to its end; and that end.

    Decisions without events count once the log has proven them. Raises what the log or Postgres raises.
    """
    row = await pool.fetchrow(SNAPSHOT, truth.removesuffix("events"), partition)
    end, inputs = (row["events_end"], orjson.loads(row["inputs"])) if row else (0, {})
    async for records in log.read_on(truth, partition, end):
        for record in records:
            if not record.void:
                fold_inputs(inputs, record, first(record.headers))
        end += len(records)
    return inputs, end
