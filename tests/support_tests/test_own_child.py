"""The children of the tests: the real programs, locked, and never left behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.node import KIT, node, npm_packages
from tests.support.own_child import OwnChild

ROOT = Path(__file__).parents[2]
#: A process that starts an authorization server and tells its process id and its address.
PARENT = """
import asyncio, json
from tests.support.oauth_server.server import OAuthServer
async def main():
    async with OAuthServer() as server:
        print(json.dumps({"pid": server.pid, "port": int(server.issuer.rpartition(":")[2])}), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_child_ends_when_its_parent_is_killed() -> None:
    child = await OwnChild.start("parent", [sys.executable, "-c", PARENT], environment={"PYTHONPATH": str(ROOT)})
    os.kill(child.word["pid"], 0)
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while await listens(child.word["port"]):
            await asyncio.sleep(0.02)
    await child.stop()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_one_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"broken did not start: .*no such thing"):
        await OwnChild.start("broken", [sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_the_packages_are_those_of_the_lock_and_no_address_is_in_it() -> None:
    lock = json.loads((KIT / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert [name for name, one in packages.items() if "resolved" in one] == []
    assert [name for name, one in packages.items() if not one.get("integrity", "").startswith("sha512-")] == []
    for name in ("oidc-provider", "@sparticuz/chromium"):
        found = json.loads((npm_packages() / "node_modules" / name / "package.json").read_text())
        assert found["version"] == packages[f"node_modules/{name}"]["version"]


def test_node_is_the_binary_itself() -> None:
    assert node().read_bytes()[:4] == b"\x7fELF" or sys.platform != "linux"
