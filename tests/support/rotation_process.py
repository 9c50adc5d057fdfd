"""A rotation in a process of its own that kills itself where it is told: database, keyset, point, pass and settling time.

It writes what was reported to standard output. Without a point it rotates to the end.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateways.stores.key_rotation import Rotated, rotate
from gateways.stores.postgres import pooled
from tests.faults import armed
from tests.faults.armed import Point
from tests.support.key_house import KeyHouse

POINTS = {
    "key written, not in place": Point("", "pathlib:Path.replace", "before"),
    "key in place": Point("", "gateways.stores.keyset_file:add_primary", "after"),
    "begun": Point("", "gateways.stores.key_rotation:_begin", "after"),
    "batch read": Point("", "gateways.stores.key_rotation:_Wrapping._exchange", "before"),
    "batch exchanged": Point("", "gateways.stores.key_rotation:_Wrapping._exchange", "after"),
    "all exchanged": Point("", "gateways.stores.key_rotation:_Wrapping.until_settled", "after"),
    "earlier keys disabled": Point("", "gateways.stores.keyset_file:disable_others", "after"),
    "reported": Point("", "tests.support.key_house:reported", "after"),
}


def report(rotated: Rotated) -> None:
    print(json.dumps({"key": rotated.key, "rows": rotated.rows, "began_at": rotated.began_at.isoformat()}), flush=True)


async def run(database: str, path: str, settle_seconds: float) -> None:
    from tests.support import key_house

    async def told(rotated: Rotated) -> None:
        report(rotated)
        key_house.reported()

    async with pooled(database, size=3) as pool:
        house = KeyHouse(pool, Path(path))
        await rotate(pool, house.keys, report=told, settle_seconds=settle_seconds, batch=40)


if __name__ == "__main__":
    armed.POINTS.update(POINTS)
    if sys.argv[3]:
        armed.arm(sys.argv[3], int(sys.argv[4]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    asyncio.run(run(sys.argv[1], sys.argv[2], float(sys.argv[5])))
