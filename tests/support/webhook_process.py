"""A worker that delivers webhooks and kills itself at a named point, told by one JSON line: settings, point, and pass.

It says that it is ready, and runs until its standard input ends.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pydantic import SecretStr

from gateways.settings import Settings
from main import assembled
from tests.faults.armed import arm, scale_sessions


async def run(told: Any) -> None:
    if told["point"]:
        arm(told["point"], told["nth"], lambda: os.kill(os.getpid(), signal.SIGKILL))
    scale_sessions("")
    said = told["settings"]
    said |= {"data": Path(said["data"]), "database_url": SecretStr(said["database_url"])}
    async with assembled(Settings(**said), ["work"]):
        print(json.dumps({"ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


asyncio.run(run(json.loads(sys.stdin.readline())))
