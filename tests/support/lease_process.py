"""A process that leases when it is told to: database, keyset, holder and names of connections, as one JSON line.

It says that it is ready, waits for a line, leases, and says what it got.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateways.stores.postgres import pooled
from tests.support.key_house import KeyHouse


async def run(told: Any) -> None:
    async with pooled(told["database"], size=2) as pool:
        vault = KeyHouse(pool, Path(told["keyset"])).vault
        await pool.fetchval("select 1")
        print(json.dumps({"ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        held = await vault.lease(told["connections"], seconds=30, holder=told["holder"])
        print(json.dumps([one.connection for one in held]), flush=True)


asyncio.run(run(json.loads(sys.stdin.readline())))
