"""What a snapshot of a decider's fold is taken at."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A consistent cut of one partition: the end of its log, the next offset of each input, and the lane's clock (ms)."""

    end: int = 0
    inputs: Mapping[str, int] = field(default_factory=dict)
    now_ms: int = 0
