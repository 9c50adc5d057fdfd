"""A Kafka from before and a Postgres of today: `up` says what is missing and what to do, once it is sure."""

import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.support.main_words import MAIN
from tests.support.up import installed_at, started

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.environ.get("FAULTS") != "full", reason="takes half a minute to be sure: `make faults` does"),
]


async def test_up_says_that_records_are_missing_from_the_log(tmp_path: Path) -> None:
    words = installed_at(tmp_path / "data")
    with started(words) as up:
        connection = await asyncpg.connect(up.servers.database_url)
        moved = "update kept.checkpoints set position = position + 10 where topic = 'mailbox.events' and name = 'feed'"
        assert await connection.execute(moved) == "UPDATE 1"
        await connection.close()
    said = subprocess.run(
        [sys.executable, MAIN, "up"], env=words.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 1
    assert "records are missing" in said.stderr
    assert "Restore the Kafka data" in said.stderr
