"""CPU and memory of a process and everything below it, from /proc.

RSS counts pages that processes share once for each of them (Postgres's buffers, above all); PSS divides them.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """MiB over all processes; `peak` is the sum of each process's own highest RSS, so not less than what ever was."""

    rss: float
    pss: float
    peak: float


@dataclass(frozen=True)
class ProcessTree:
    root: int

    def pids(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            if fields := _stat(stat):
                children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found = [self.root]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """Of the living, and of those they have already waited for."""
        stats = [_stat(Path(f"/proc/{pid}/stat")) for pid in self.pids()]
        return sum(int(ticks) for fields in stats if fields for ticks in fields[11:15]) / TICKS

    def memory(self) -> Memory:
        pids = self.pids()
        resident = [_kib(pid, "status", "VmRSS") for pid in pids]
        shared = [_kib(pid, "smaps_rollup", "Pss") for pid in pids]
        peaks = [_kib(pid, "status", "VmHWM") for pid in pids]
        return Memory(*(round(sum(kib) / 1024, 1) for kib in (resident, shared, peaks)))

    def cpu_by_name(self) -> dict[str, float]:
        """CPU seconds by what runs: which part of the whole binds."""
        found: dict[str, float] = {}
        for pid in self.pids():
            if fields := _stat(Path(f"/proc/{pid}/stat")):
                name = _name(pid)
                found[name] = found.get(name, 0) + sum(map(int, fields[11:13])) / TICKS
        return found

    def pss_by_name(self) -> dict[str, float]:
        """MiB by what runs."""
        found: dict[str, float] = {}
        for pid in self.pids():
            name = _name(pid)
            found[name] = round(found.get(name, 0) + _kib(pid, "smaps_rollup", "Pss") / 1024, 1)
        return found


def _stat(path: Path) -> list[str] | None:
    """Fields 3 and following of proc_pid_stat(5): state, parent, …"""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _kib(pid: int, file: str, name: str) -> int:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    for part in ("http", "work", "up"):
        if part in command[2:4]:
            return {"http": "doors", "work": "workers"}.get(part, part)
    if "kafka.Kafka" in command:
        return "kafka"
    return Path(command[0].split(":")[0] or "?").name
