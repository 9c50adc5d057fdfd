"""Children that never outlive us.

A child is started by a shell of a few lines, which forks a *guard* and then becomes the server itself, so the process id
we know is the server's own. The guard sleeps in a read on a pipe whose other end only we hold. When we end, however
rudely (`kill -9` included), the kernel closes that end, the guard wakes, asks the server to stop in the gentlest way
that does not wait for clients, and after a few seconds kills its process group. `PR_SET_PDEATHSIG` was the shorter way
and does not hold: it is tied to the thread that forked, and is lost at every exec that changes credentials, which is
how Postgres is started by root.

The guard also inherits the descriptor of the lock on the data folder. The lock is thus held until the last server is
really gone, and whoever starts next on the same folder waits for that instead of racing it.

Everything a child prints goes to one file, opened for appending and cut by `trim` once it is long.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LONGEST_LOG = 4 * 1024 * 1024
_POLL_SECONDS = 0.02

# 0 is our pipe, 2 the lock, 1 the log. `$$` stays the first shell's id in the guard, and that is the server's after exec.
_GUARDED = """
exec 3<&0 4<&2 </dev/null 2>&1
{
  trap '' INT TERM QUIT HUP
  read -r _ <&3
  kill -s "$1" 0
  left=50
  while [ "$left" -gt 0 ] && kill -0 $$ 2>/dev/null; do sleep 0.1; left=$((left - 1)); done
  kill -s KILL 0
} &
shift
exec "$@" 3<&- 4<&-
"""


class CannotStart(Exception):
    """A server cannot run here; the message is one sentence for the person who started it, with what to do."""


@dataclass
class Child:
    """One server process and the pipe that keeps its guard asleep."""

    name: str
    log: Path
    stop_signal: int
    process: asyncio.subprocess.Process
    _pipe: int

    @classmethod
    async def spawn(
        cls, name: str, command: Sequence[str | Path], *, log: Path, stop_signal: int, guard_signal: str, lock: int
    ) -> Self:
        """Start `command` in a session of its own, guarded; its output is appended to `log`.

        `stop_signal` ends it gently, `guard_signal` (a name such as "TERM") is what the guard sends after our death.
        `lock` is a descriptor that the guard keeps open. Raises CannotStart when the system refuses a process.
        """
        ours, theirs = None, None
        try:
            theirs, ours = os.pipe()
            with log.open("ab") as output:
                argv = ["/bin/sh", "-c", _GUARDED, name, guard_signal, *map(str, command)]
                process = await asyncio.create_subprocess_exec(
                    *argv, stdin=theirs, stdout=output, stderr=lock, start_new_session=True
                )
        except BaseException as error:
            if ours is not None:
                os.close(ours)
            if isinstance(error, OSError):
                raise CannotStart(f"{name} cannot be started: {error.strerror or error}.") from error
            raise
        finally:
            if theirs is not None:
                os.close(theirs)
        return cls(name, log, stop_signal, process, ours)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.returncode is None

    async def until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait for `ready`; raises CannotStart when the child ends before, or the time does."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not ready():
            if not self.alive:
                raise CannotStart(f"{self.name} ended while it started: {self.last_words()} (more in {self.log}).")
            if asyncio.get_running_loop().time() > deadline:
                raise CannotStart(f"{self.name} was not ready after {seconds:.0f} s; {self.log} may say why.")
            await asyncio.sleep(_POLL_SECONDS)

    async def ended(self) -> int:
        """Wait for its end, release the guard, and answer the exit status."""
        status = await self.process.wait()
        self._release_guard()
        return status

    async def stop(self, *, seconds: float = 10) -> None:
        """End it gently, and after `seconds` for certain."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(self.stop_signal)
        try:
            await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.ended()

    def last_words(self) -> str:
        """The last line of the log that is not a stack frame, to quote in an error."""
        lines = tail(self.log, 16 * 1024).decode(errors="replace").splitlines()
        telling = [line.strip() for line in lines if line.strip() and not line.startswith(("\t", " ", "WARNING:"))]
        return telling[-1][:300].rstrip(".") if telling else f"status {self.process.returncode}, without a word"

    def _release_guard(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


async def in_thread(work: Callable[..., None], *arguments: object) -> None:
    """As `asyncio.to_thread`, but a cancellation waits for the thread to end: what it does to a folder is over before
    the folder is let go."""
    doing = asyncio.create_task(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


def trim(log: Path, longest: int = LONGEST_LOG) -> None:
    """Move a log longer than `longest` bytes to `….1` and begin it anew; what is written meanwhile may be lost.

    The child goes on writing into the same file, which works because it appends.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > longest:
            shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)


def tail(path: Path, count: int) -> bytes:
    """The last `count` bytes of a file, or less."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read()
