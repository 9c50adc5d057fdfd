"""Processes for roles that are killed all the time: forked from one that has loaded everything, so a start costs no imports.

`python -m tests.faults.nursery` reads one JSON request a line (`arguments` of `armed.run`, `environment`, `log`) and writes
one JSON answer a line: `{"born": pid}` for each request, `{"dead": pid, "status": exit status or −signal}` for each end. All
of them end with it, and it ends with its standard input.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
#: What roles load, beside what these load themselves.
LOADED = (
    "uvloop", "main", "gateways.settings", "gateways.logs", "gateways.log.command_log", "gateways.log.event_log",
    "gateways.log.subscriptions", "gateways.log.tail", "gateways.log.raw_mail", "gateways.log.dead_letters",
    "gateways.mail_in.smtp", "gateways.mail_in.log_door", "gateways.parser.pool", "gateways.stores.folded",
    "gateways.stores.freshness", "gateways.stores.snapshots", "gateways.stores.work_positions",
    "gateways.stores.keyring", "gateways.stores.blobs", "handlers.accounts", "handlers.mailboxes", "handlers.parse",
    "handlers.effector", "handlers.timers", "handlers.connections", "handlers.refresh", "handlers.revoke",
    "gateways.providers.catalogue", "gateways.stores.vault", "projections.catalogue", "projections.projector",
    "handlers.delivery_effect", "handlers.dispatch",
)  # fmt: skip
PR_SET_PDEATHSIG = 1


class Child(NamedTuple):
    """A process: kernels use the ids of the dead again, so the id alone names nobody."""

    pid: int
    life: int


class Nursery:
    """One such process, and what is known of its children."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._births: list[Child] = []
        self._lives: dict[int, int] = {}
        self._born = threading.Condition()
        self._asking = threading.Lock()
        self.deaths: dict[Child, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def bear(self, arguments: list[str], environment: dict[str, str], log: Path) -> "Child":
        """A new role."""
        assert self._process.stdin is not None
        request = {"arguments": arguments, "environment": environment, "log": str(log)}
        with self._asking, self._born:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if not self._born.wait_for(lambda: self._births, 30):
                raise TimeoutError("the nursery does not answer")
            return self._births.pop()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._born:
                if "born" in told:
                    pid = told["born"]
                    self._lives[pid] = self._lives.get(pid, 0) + 1
                    self._births.append(Child(pid, self._lives[pid]))
                    self._born.notify()
                else:
                    pid = told["dead"]
                    self.deaths[Child(pid, self._lives[pid])] = told["status"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _say(told: dict[str, int]) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def _become(request: dict[str, Any], nursery: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from tests.faults import armed

    try:
        armed.run(request["arguments"])
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork that lived on would serve as a second nursery
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"dead": pid, "status": os.waitstatus_to_exitcode(status)})


def serve() -> None:
    """Forks what is asked for until nobody asks any more."""
    import importlib

    for name in LOADED:
        importlib.import_module(name)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    nursery, waiting = os.getpid(), b""
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            os.read(read, 1024)
        _reap()
        if 0 in ready:
            heard = os.read(0, 65_536)
            if not heard:
                return
            *lines, waiting = (waiting + heard).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    _become(json.loads(line), nursery)
                _say({"born": pid})


if __name__ == "__main__":
    serve()
