"""`main.py up` as a process of its own, on its own folder and ports, as somebody starts it who has just cloned this."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateways.local_ports import free_port
from gateways.local_servers import Servers, running
from tests.support.main_words import MAIN, Installed

READY_SECONDS = 90.0
ENDING_SECONDS = 40.0


@dataclass(frozen=True)
class Up:
    """A running `up`. `words` runs other commands beside it, `url` and `smtp` are where it listens, `log` what it said."""

    process: subprocess.Popen[bytes]
    words: Installed
    data: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://{self.words.environment['POSTLEDGER_HTTP']}"

    @property
    def smtp(self) -> tuple[str, int]:
        host, _, port = self.words.environment["POSTLEDGER_SMTP"].rpartition(":")
        return host, int(port)

    @property
    def servers(self) -> Servers:
        found = running(self.data)
        assert found is not None
        return found

    @property
    def said(self) -> str:
        return self.log.read_text()

    def terminate(self) -> int:
        """Ends it as Ctrl-C or a supervisor would; the exit status."""
        self.process.terminate()
        return self.process.wait(ENDING_SECONDS)

    def kill(self) -> None:
        """Ends it alone, with no time for anything; returns when it is gone. Its children are not told."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(ENDING_SECONDS)


def installed_at(data: Path, **settings: str) -> Installed:
    """An installation that nobody else's ports are in the way of."""
    ports = {"http": f"127.0.0.1:{free_port()}", "smtp": f"127.0.0.1:{free_port()}"}
    return Installed.at(data, **(ports | settings))


@contextmanager
def started(words: Installed) -> Iterator[Up]:
    """It runs and has said that it is ready; ends it at the end of the block, where it still runs."""
    data = Path(words.environment["POSTLEDGER_DATA"])
    log = data.with_name(f"{data.name}-up.log")
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, MAIN, "up"], env=words.environment, stdout=output, stderr=output)
    up = Up(process, words, data, log)
    try:
        _await_greeting(up)
        yield up
    finally:
        if process.poll() is None:
            up.terminate()


def _await_greeting(up: Up) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while "Ctrl-C ends it." not in up.said:
        assert up.process.poll() is None, f"ended with {up.process.returncode}: {up.said}"
        assert time.monotonic() < deadline, f"not ready after {READY_SECONDS} s: {up.said}"
        time.sleep(0.05)


# ── its children ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Process:
    """A process that can't be mistaken for a later one of the same id."""

    pid: int
    began: str

    @property
    def alive(self) -> bool:
        found = _stat(self.pid)
        return found is not None and found[19] == self.began and found[0] not in {"Z", "X"}


def descendants(pid: int) -> set[Process]:
    """The children of a process, their children, and so on."""
    ids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {one: found for one in ids if (found := _stat(one))}
    family, grown = {pid}, True
    while grown:
        more = {child for child, found in parents.items() if int(found[1]) in family} - family
        family |= more
        grown = bool(more)
    return {Process(child, parents[child][19]) for child in family - {pid}}


def await_gone(processes: set[Process], *, seconds: float) -> None:
    """Returns once none of them lives; raises AssertionError."""
    deadline = time.monotonic() + seconds
    while left := {process for process in processes if process.alive}:
        assert time.monotonic() < deadline, f"still there after {seconds} s: {[_command(one.pid) for one in left]}"
        time.sleep(0.05)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc(5)): state, parent, …, at 19 the moment it began."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return "gone"
