"""A projector in a process of its own that kills itself where it is told: kafka, prefix, database, moment and batch.

The moment is `in_transaction`, with rows changed and nothing committed, or `after_commit`, before anybody hears of it.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateways.log.event_log import EventLog
from gateways.stores.postgres import pooled
from projections.projection import Folded, Projection
from projections.projector import Projector
from tests.support.mail_history import MailLog, projecting

MOMENT, BATCH = sys.argv[4], int(sys.argv[5])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(Projection):
    """Kills the process when the last projection has changed its rows."""

    async def fold(self, connection: Any, events: list[Folded]) -> None:
        await super().fold(connection, events)
        die()


class Mortal(Projector):
    batches = 0

    async def _fold(self, partition: int, place: Any, records: Any) -> None:
        self.batches += 1
        if self.batches == BATCH and MOMENT == "in_transaction":
            self.projections[-1] = Dying(**vars(self.projections[-1]))
        await super()._fold(partition, place, records)
        if self.batches == BATCH and MOMENT == "after_commit":
            die()


async def run(kafka: str, prefix: str, database: str) -> None:
    log = EventLog(kafka, prefix=prefix)
    async with pooled(database) as pool:
        mail = MailLog(kafka, prefix, database, log, pool)
        async with projecting(mail, group=f"mortal{os.getpid()}", projector=Mortal):
            await asyncio.Event().wait()


asyncio.run(run(*sys.argv[1:4]))
