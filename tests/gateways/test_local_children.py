"""A child's log stays short and its last words are told."""

import os
import signal

import pytest

from gateways.local_children import CannotStart, Child, trim


@pytest.fixture
def lock(tmp_path):
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


async def spawned(tmp_path, lock, script: str) -> Child:
    return await Child.spawn(
        "Server", ["sh", "-c", script], log=tmp_path / "log", stop_signal=signal.SIGTERM, guard_signal="TERM", lock=lock
    )


async def test_a_child_that_ends_while_it_starts_is_quoted(tmp_path, lock):
    child = await spawned(tmp_path, lock, "echo first; echo 'no room at the inn.' >&2; exit 3")
    with pytest.raises(CannotStart, match=r"Server ended while it started: no room at the inn \(more in .*log\)\."):
        await child.until(lambda: False, seconds=5)
    assert await child.ended() == 3


async def test_a_child_that_is_never_ready_is_given_up(tmp_path, lock):
    child = await spawned(tmp_path, lock, "exec sleep 60")
    with pytest.raises(CannotStart, match=r"Server was not ready after 0 s"):
        await child.until(lambda: False, seconds=0.1)
    await child.stop()
    assert not child.alive


async def test_a_child_that_does_not_listen_is_ended_all_the_same(tmp_path, lock):
    child = await spawned(tmp_path, lock, "trap '' TERM; echo deaf; while :; do sleep 1; done")
    await child.until(lambda: (tmp_path / "log").read_text() == "deaf\n", seconds=5)
    await child.stop(seconds=0.2)
    assert child.process.returncode == -signal.SIGKILL


def test_a_long_log_is_begun_anew_under_the_feet_of_its_writer(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100)
    with log.open("ab") as writer:
        trim(log, longest=99)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "log.1").stat().st_size == 100
    trim(log, longest=99)
    assert log.read_bytes() == b"after", "a short one is left alone"
