"""A rebuild of `messages` in a process of its own that kills itself at a moment: kafka, prefix, database, moment."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateways.log.event_log import EventLog
from projections import replay
from projections.messages import PROJECTION
from schemas import events

MOMENT = sys.argv[4]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(replay.Rebuild):
    async def _compare(self, *parts: Any) -> None:
        if MOMENT == "comparing":
            die()
        await super()._compare(*parts)

    async def _catch_up(self, *parts: Any, **more: Any) -> None:
        await super()._catch_up(*parts, **more)
        if MOMENT == "exchanging":
            die()


async def exchange_and_die(*parts: Any, **more: Any) -> None:
    """Everything is exchanged, but not committed."""
    await real_exchange(*parts, **more)
    die()


real_exchange = replay.exchange
if MOMENT == "exchanged":
    replay.exchange = exchange_and_die


async def run(kafka: str, prefix: str, database: str) -> None:
    log = EventLog(kafka, prefix=prefix)
    await Mortal(PROJECTION, events.MAILBOX, log, database).run(progress=die if MOMENT == "first_batch" else None)


asyncio.run(run(*sys.argv[1:4]))
