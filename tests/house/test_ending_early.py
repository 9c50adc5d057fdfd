"""`up` may be told to end at any moment of its start: it ends well, and the next start finds nothing in its way."""

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.main_words import MAIN, Installed
from tests.support.up import ENDING_SECONDS, installed_at, started

SECONDS = 3.0
#: More than a start takes on a busy machine, and less than a guard of a killed start or a client's time-out would cost.
START_SECONDS = 30.0


def test_told_to_end_while_it_starts_it_leaves_nobody_behind_and_nothing_to_wait_for(tmp_path: Path) -> None:
    """By either signal, in turn; which of them comes first is chance, as the moments are."""
    data = tmp_path / "data"
    words = installed_at(data)
    first = random.randrange(2)
    for part in range(6):
        wanted = (signal.SIGTERM, signal.SIGINT)[(first + part) % 2]
        after = random.uniform(part, part + 1) * SECONDS / 6
        code, pid = told_after(words, after, wanted)
        # Python itself dies of a signal while it is still loading; then the folder was not its own yet.
        assert code == 0 or owner(data) != pid, (code, after, wanted)
        assert processes_on(data) == [], (after, wanted)
    began = time.monotonic()
    with started(words) as up:
        assert time.monotonic() - began < START_SECONDS
        assert up.terminate() == 0
    assert processes_on(data) == []


def test_a_second_signal_ends_it_at_once_and_its_children_soon(tmp_path: Path) -> None:
    words = installed_at(tmp_path / "data")
    with started(words) as up:
        # Frozen, the doors can't end: only a second signal is faster than what they are given.
        (doors,) = [
            pid
            for pid in processes_on(tmp_path / "data")
            if b"\0http\0" in command(pid) and b"/bin/sh" not in command(pid)
        ]
        subprocess.run(["kill", "-STOP", str(doors)], check=True)
        up.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            up.process.wait(1)
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(2) == 130
        deadline = time.monotonic() + 15
        while processes_on(tmp_path / "data"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def told_after(words: Installed, seconds: float, wanted: signal.Signals) -> tuple[int, int]:
    """Starts `up`, tells it so many seconds later to end, and waits for that; its status and its process id."""
    process = subprocess.Popen([sys.executable, MAIN, "up"], env=words.environment)
    time.sleep(seconds)
    process.send_signal(wanted)
    return process.wait(ENDING_SECONDS), process.pid


def owner(data: Path) -> int | None:
    """Which process last had this folder for itself."""
    with suppress(OSError, ValueError):
        return int((data / "up.lock").read_text())
    return None


def processes_on(data: Path) -> list[int]:
    """Ids of all processes whose command names this folder."""
    ids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in ids if str(data).encode() in command(pid)]


def command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
