"""Key rotation is killed wherever it can be, under load from other processes, and nothing becomes unreadable (K16, M-04)."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateways.stores.postgres import pooled
from projections.migrate import migrate
from tests.support.key_house import KeyHouse
from tests.support.own_child import OwnChild
from tests.support.rotation_process import POINTS

SUPPORT = Path(__file__).parents[1] / "support"
#: Times that each of the eight points is killed at.
ROUNDS = 10 if os.environ.get("FAULTS") == "full" else 1

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[KeyHouse]:
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield KeyHouse(pool, tmp_path / "keyset.json")


async def rotating(
    database: str, house: KeyHouse, point: str = "", nth: int = 1, settle: float = 0.05
) -> tuple[int, list[Any]]:
    """The process's end and what it reported."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SUPPORT / "rotation_process.py"), database, str(house.path), point, str(nth), str(settle),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode, [json.loads(line) for line in out.splitlines()]


async def load(database: str, house: KeyHouse, name: str) -> OwnChild:
    told = {"database": database, "keyset": str(house.path), "name": name}
    return await OwnChild.start("load", [sys.executable, SUPPORT / "rotation_load.py"], told=told)


async def ended(child: OwnChild) -> Any:
    assert child.process.stdin is not None
    assert child.process.stdout is not None
    child.process.stdin.write(b"end\n")
    async with asyncio.timeout(30):
        said = json.loads(await child.process.stdout.readline())
    await child.stop()
    return said


async def test_nothing_is_lost_wherever_a_rotation_is_killed(house: KeyHouse, database: str, capsys) -> None:
    seed = int(os.environ.get("FAULTS_SEED", Random().randrange(10**6)))
    random = Random(seed)
    await house.keyring.create_all([f"mbx_{number:04}" for number in range(1000)])
    children = [await load(database, house, name) for name in ("a", "b")]
    first = house.keyset.primary
    points = [*POINTS] * ROUNDS
    random.shuffle(points)
    for point in points:
        nth = random.randint(1, 5) if point.startswith("batch") else 1
        end, _ = await rotating(database, house, point, nth)
        if end == 0:  # the one before was ended, past this point: the next is a new one
            end, _ = await rotating(database, house, point, nth)
        assert end == -signal.SIGKILL, f"{point}: a kill that does not land proves nothing"
        await house.opened()
    last, reports = await rotating(database, house, settle=1.5)
    said = [await ended(child) for child in children]
    assert last == 0
    assert [each["wrong"] for each in said] == [[], []]
    assert all(min(each["done"][what] for what in ("created", "refreshed", "connected", "read")) for each in said)

    final = house.another()
    rows = await final.opened()
    assert await house.kids() == {"keyring": {final.keyset.primary}, "vault": {final.keyset.primary}}
    assert first != final.keyset.primary == reports[-1]["key"]
    kept = json.loads(house.path.read_text())
    assert [key["status"] for key in kept["keys"] if key["kid"] != kept["primary"]] == ["disabled"] * (
        len(kept["keys"]) - 1
    )
    assert [path.name for path in house.path.parent.iterdir()] == [house.path.name], "no half-made file stays behind"
    assert house.path.stat().st_mode & 0o777 == 0o600
    with capsys.disabled():
        print(
            f"\nseed {seed}: {len(points)} kills, {len(kept['keys'])} keys, {rows} rows, {[each['done'] for each in said]}"
        )


async def test_a_rotation_that_was_reported_and_killed_is_reported_as_the_same_again(
    house: KeyHouse, database: str
) -> None:
    await house.keyring.create_all([f"mbx_{number:04}" for number in range(100)])
    _, before = await rotating(database, house, "batch exchanged", 2)
    end, once = await rotating(database, house, "reported")
    assert end == -signal.SIGKILL
    _, twice = await rotating(database, house)
    assert before == []
    assert once == twice
    assert [each["rows"] for each in once] == [100], "what the killed one wrapped counts as well"
    _, another = await rotating(database, house)
    assert another[0]["key"] != once[0]["key"]
