"""The lines of a run as the table of docs/benchmarks.md: `python -m tests.benchmarks.table run.log …`.

Every figure is the median over the rounds of one run, with the least and the most behind it where there were several.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final

#: Workload, its figures with their units, and the bar that ours is held to.
ROWS: Final = (
    ("visible mails, 10 KiB, reused connections", "visible_per_s", "/s", "≥ 1 × Mailpit"),
    ("visible mails, 10 KiB, a connection for each mail", "visible_per_s", "/s", "≥ 0.6 × Mailpit"),
    ("visible mails, 1 MiB, reused connections", "visible_per_s", "/s", "≥ 1 × Mailpit"),
    ("visible mails, 10 KiB, reused connections", "cpu_ms_per_mail", "ms of CPU a mail", ""),
    ("visible mails, 10 KiB, a connection for each mail", "cpu_ms_per_mail", "ms of CPU a mail", ""),
    ("visible mails, 1 MiB, reused connections", "cpu_ms_per_mail", "ms of CPU a mail", ""),
    ("connect to pushed, one mail at a time", "connect_to_pushed_ms.p50", "ms, p50", "≤ 22"),
    ("connect to pushed, one mail at a time", "connect_to_pushed_ms.p99", "ms, p99", "≤ 60"),
    ("POST /mailboxes to 201, 10 a second", "ms.p50", "ms, p50", "≤ 15"),
    ("POST /mailboxes to 201, 10 a second", "ms.p99", "ms, p99", "≤ 30"),
    ("POST /mailboxes to 201, 200 a second", "ms.p50", "ms, p50", "≤ 35"),
    ("POST /mailboxes to 201, 200 a second", "ms.p99", "ms, p99", "≤ 100"),
    ("POST /mailboxes to 201, 200 a second", "cpu_ms_per_request", "ms of CPU a request", ""),
    ("list 50 of 1000", "requests_per_s", "/s", "≥ 1 × Mailpit"),
    ("list 50 of 1000", "cpu_ms_per_request", "ms of CPU a request", ""),
    ("14 MiB mail", "accepted_ms", "ms until 250", "≤ 1 × Mailpit"),
    ("14 MiB mail", "cpu_ms_per_mail", "ms of CPU", ""),
    ("14 MiB mail", "grown_times_its_size", "times its size in memory", "≤ 10"),
    ("14 MiB mail", "pss_kept_10_s_later_mib", "MiB kept 10 s later", ""),
    ("rebuild of `messages`, bodies of 1 KiB", "events_per_s", "events/s", "≥ 10,000"),
    ("rebuild of `messages`, bodies of 10 KiB", "events_per_s", "events/s", "≥ 3,000"),
    ("rebuild of `messages`, bodies of 1 KiB", "cpu_us_per_event", "µs of CPU an event", ""),
    ("rebuild of `messages`, bodies of 10 KiB", "cpu_us_per_event", "µs of CPU an event", ""),
    ("5000 idle SSE clients", "kib_each_rss", "KiB each, RSS", "≤ 14"),
    ("5000 idle SSE clients", "kib_each_pss", "KiB each, PSS", ""),
    ("up, ready in seconds, warm", "seconds", "s", "≤ 4"),
    ("up, ready in seconds, first time with the jars cached", "seconds", "s", "≤ 8"),
    ("up, ready in seconds, warm", "cpu_seconds", "s of CPU", ""),
    ("all processes, idle", "rss_mib", "MiB, sum of RSS", "≤ 550"),
    ("all processes, idle", "pss_mib", "MiB, sum of PSS", ""),
)
SIDES: Final = ("postledger", "mailpit", "inbucket", "floor")


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown; a side that was not measured is a dash."""
    rows = ["| | " + " | ".join(SIDES) + " | bar |", "|---" * (len(SIDES) + 2) + "|"]
    for workload, figure, unit, bar in ROWS:
        cells = [_cell([_at(one, figure) for one in lines if _is(one, workload, side)]) for side in SIDES]
        if any(cell != "–" for cell in cells):
            rows.append(f"| {workload}: {unit} | " + " | ".join(cells) + f" | {bar} |")
    return "\n".join(rows)


def _is(line: dict[str, Any], workload: str, side: str) -> bool:
    return bool(line["workload"] == workload and line.get("side") == side)


def _at(line: dict[str, Any], figure: str) -> float | None:
    value: Any = line
    for name in figure.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def _cell(found: list[float | None]) -> str:
    values = [value for value in found if value is not None]
    if not values:
        return "–"
    middle = _short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_short(min(values))} … {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def read(text: str) -> list[dict[str, Any]]:
    """The measurements among whatever else a run printed."""
    decoder = json.JSONDecoder()
    found = [decoder.raw_decode(line)[0] for line in text.splitlines() if line.startswith('{"workload"')]
    return [line for line in found if "side" in line]


if __name__ == "__main__":
    sys.stdout.write(table([line for name in sys.argv[1:] for line in read(Path(name).read_text())]) + "\n")
