"""A process that owns the servers of a folder until it is killed: `python -m tests.support.owner_of_servers FOLDER`.

Prints one JSON line with their addresses and process ids once they are ready.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from gateways.local_servers import LocalServers


async def own(data: Path) -> None:
    local = LocalServers(data)
    async with local as servers:
        sys.stdout.write(json.dumps({"servers": asdict(servers), "pids": local.pids}) + "\n")
        sys.stdout.flush()
        await local.watch()


if __name__ == "__main__":
    asyncio.run(own(Path(sys.argv[1])))
