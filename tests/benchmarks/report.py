"""What a benchmark prints: one JSON line for each measurement, and one that compares the sides of a run.

A comparison sets the medians over the rounds against each other. It judges nothing: the bars are in docs/benchmarks.md.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

OURS = "postledger"


def quantiles(milliseconds: Iterable[float]) -> dict[str, float]:
    """p50, p99 and the longest."""
    ordered = sorted(milliseconds)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99)]
    return {"p50": round(at[0], 2), "p99": round(at[1], 2), "max": round(ordered[-1], 2)}


@dataclass
class Report:
    """The measurements of one workload, in the order in which they were made."""

    workload: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, side: str, **figures: Any) -> None:
        line = {"workload": self.workload, "side": side, **figures}
        self.lines.append(line)
        _print(line)

    def absent(self, sides: Sequence[str]) -> None:
        """Says which sides could not be measured, so that nobody takes silence for a comparison."""
        for side in sides:
            _print({"workload": self.workload, "side": side, "measured": False, "why": "no program under $PEERS/bin"})

    def compare(self, figure: str) -> None:
        """Medians of a figure, and ours as a multiple of each other side's."""
        values: dict[str, list[float]] = {}
        for line in self.lines:
            if (value := _at(line, figure)) is not None:
                values.setdefault(line["side"], []).append(value)
        medians = {side: statistics.median(found) for side, found in values.items()}
        ours = medians.get(OURS)
        ratios = {side: round(ours / median, 3) for side, median in medians.items() if side != OURS and ours and median}
        _print({"workload": self.workload, "compared": figure, "medians": medians, "ours_is_times": ratios})


def _at(line: dict[str, Any], figure: str) -> Any:
    value: Any = line
    for name in figure.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write("\n" + json.dumps(line))
    sys.stdout.flush()
