"""A worker that delivers webhooks and kills itself at a named point, told by one JSON line: settings, point, and pass.

It says that it is armed, and runs until its standard input ends.
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
    # Said before there are parts: where much waits, it may be at its point before all of them are there.
    print(json.dumps({"armed": told["point"]}), flush=True)
    async with assembled(Settings(**said), ["work"]):
        await asyncio.to_thread(sys.stdin.readline)


asyncio.run(run(json.loads(sys.stdin.readline())))
