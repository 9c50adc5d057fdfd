"""The child that reads mails: frames in, frames out, on one socket; started by `gateways.parser.pool`.

    python -I -S child.py ROOT LIBRARIES FD QUICK_SECONDS FULL_CPU_SECONDS MEMORY_MB

It imports what reading a mail needs and nothing else. It bounds itself: its address space by RLIMIT_AS, each quick mail
by the wall clock, each full one by the CPU it uses (RLIMIT_CPU a second behind, should the signal not get through).
A mail beyond a bound is answered with the cause; out of memory it answers and ends, to be replaced by a fresh one.
It ends when its socket does: at the latest when the mail it holds is done, at once where the system can tell it that
its parent died. It writes nothing to anywhere but the socket: a traceback would carry mail.
"""

import os
import resource
import signal
import socket
import sys
from types import FrameType

BLOCK = 64 * 1024
REPLIES_AT_ONCE = 32


class TimeIsUp(BaseException):
    """Raised by the signals of the two clocks; no ``except Exception`` on the way may take it for its own."""


def main(arguments: list[str]) -> None:
    """Serve until the other end of the socket closes."""
    root, libraries, descriptor, quick_seconds, full_cpu_seconds, memory_mb = arguments
    _die_with_parent()
    sys.path[:0] = [root, libraries]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_mb) << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the parent decides when: a terminal's Ctrl-C reaches us too
        signal.signal(ignored, signal.SIG_IGN)
    for clock in (signal.SIGALRM, signal.SIGPROF, signal.SIGXCPU):
        signal.signal(clock, _time_is_up)
    with socket.socket(fileno=int(descriptor)) as parent:
        Child(parent, float(quick_seconds), float(full_cpu_seconds)).serve()


def _time_is_up(_signal: int, _frame: FrameType | None) -> None:
    raise TimeIsUp


def _die_with_parent() -> None:
    """prctl(PR_SET_PDEATHSIG, SIGKILL) where there is such a call: a child deep in a mail need not finish it."""
    if sys.platform != "linux":
        return
    try:
        import ctypes  # noqa: PLC0415  # not every build has it

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return


class Child:
    """Reads frames as they come and answers them in order, several in one write when they came together."""

    def __init__(self, parent: socket.socket, quick_seconds: float, full_cpu_seconds: float) -> None:
        from gateways.parser import frames, view  # noqa: PLC0415  # main has told Python where they are

        self._parent, self._frames, self._view = parent, frames, view
        self._quick_seconds, self._full_cpu_seconds = quick_seconds, full_cpu_seconds
        self._replies: list[bytes] = [frames.REPLY.pack(frames.READY, 0, 0)]
        self._exhausted = False

    def serve(self) -> None:
        """Until end of file, or until memory ran out."""
        buffer = bytearray()
        while not self._exhausted:
            self._flush()
            received = self._parent.recv(BLOCK)
            if not received:
                return
            buffer += received
            while not self._exhausted and (mail := self._taken(buffer)):
                self._answer(*mail)
        self._flush()

    def _taken(self, buffer: bytearray) -> tuple[bytes, bool] | None:
        """The next mail and whether it is read in full, taken out of the buffer; None where that has to grow first."""
        header = self._frames.REQUEST
        if len(buffer) < header.size:
            return None
        length, full = header.unpack_from(buffer)
        end = header.size + length
        if 0 < end - len(buffer) <= BLOCK:
            return None
        pieces = [bytes(memoryview(buffer)[header.size : end])]
        missing = end - len(buffer)
        del buffer[:end]
        while missing > 0:
            # All the rest at once: the process sleeps once for a long mail, not for each of its blocks.
            pieces.append(self._parent.recv(missing, socket.MSG_WAITALL))
            if not pieces[-1]:
                return None  # nobody is left to answer
            missing -= len(pieces[-1])
        return b"".join(pieces), bool(full)

    def _answer(self, raw: bytes, full: bool) -> None:
        frames, head, content = self._frames, b"", b""
        try:
            self._start_clock(full=full)
            try:
                head, content = self._view.read(raw)
                outcome = frames.WHOLE
            finally:
                self._stop_clock()
        except TimeIsUp:
            outcome = frames.outcome_of("time")
        except MemoryError:
            outcome = frames.outcome_of("memory")
            self._exhausted = True
        except self._view.Unparsable as error:
            outcome = frames.outcome_of(error.reason)
        except Exception:  # noqa: BLE001  # whatever a mail can raise is that mail's outcome
            outcome = frames.outcome_of("malformed")
        if outcome != frames.WHOLE:
            head = content = b""
        self._replies += (frames.REPLY.pack(outcome, len(head), len(content)), head, content)
        if full or len(self._replies) >= 3 * REPLIES_AT_ONCE:
            self._flush()

    def _start_clock(self, *, full: bool) -> None:
        if not full:
            signal.setitimer(signal.ITIMER_REAL, self._quick_seconds)
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + self._full_cpu_seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, self._full_cpu_seconds)

    def _stop_clock(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _flush(self) -> None:
        replies, self._replies = b"".join(self._replies), []
        try:
            self._parent.sendall(replies)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)  # nobody is left to answer


if __name__ == "__main__":
    main(sys.argv[1:])
