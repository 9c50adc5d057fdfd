"""What every context can say of a command that never reached its rules, and of the log itself."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class CommandLapsed:
    """It came after its `not_after`: whoever sent it had already been told that nothing is promised."""

    command: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """Our own fault: the rule itself failed on it. The whole record is in `dead.letters`."""

    command: str
    cause: Literal["rule_failed", "too_large"]
    dead_letter: str


@dataclass(frozen=True, slots=True)
class CommandUnreadable:
    """Its bytes or its type could not be understood. The whole record is in `dead.letters`."""

    command: str
    cause: Literal["unknown_type", "invalid_body", "missing_header"]
    dead_letter: str


@dataclass(frozen=True, slots=True)
class LogOpened:
    """The first record of every truth partition: which log this is."""

    log: str


@dataclass(frozen=True, slots=True)
class EventSkipped:
    """An operator decided that projections pass over the event at this position; rebuilds honour it."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class InputsAdvanced:
    """The decider has decided its inputs up to here, and no event followed from the last of these commands."""

    inputs: dict[str, int]


@dataclass(frozen=True, slots=True)
class InputReset:
    """Records that were removed before they were decided are passed over: an operator said so."""

    topic: str
    from_offset: int
    to_offset: int
    by: str
    reason: str


LogEvent = LogOpened | EventSkipped | InputsAdvanced | InputReset
Outcome = CommandLapsed | CommandFailed | CommandUnreadable
