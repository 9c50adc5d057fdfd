"""What a client did and heard, written down so that a kill of the client loses nothing it had heard.

One line of JSON when an operation is sent, one when it is answered, each in a single write to a file opened for appending.
An operation without an answer has the outcome `info`: nobody can say whether it took effect. A line that was cut short by
the kill is no answer.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Outcome = Literal["ok", "fail", "info"]
Kind = Literal["mail", "create"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a client.

    `mailbox` is its id as the log knows it; `sha256` is the hex digest of the mail as it should be kept (line ends CRLF),
    empty for a creation. `t_send` and `t_reply` are seconds since 1970. `ok`: 250 or 2xx; `fail`: refused before anything
    was tried; `info`: no reply, or one that promises nothing (a time-out, `outcome_unknown`).
    """

    id: str
    mailbox: str
    sha256: str
    t_send: float
    t_reply: float | None = None
    outcome: Outcome = "info"
    kind: Kind = "mail"


class Ledger:
    """Writes operations down as they happen; several processes may each have their own."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def sent(self, operation: str, mailbox: str, sha256: str = "", kind: Kind = "mail") -> None:
        """Before the first byte leaves."""
        self._write({"id": operation, "mailbox": mailbox, "sha256": sha256, "kind": kind, "t_send": time.time()})

    def answered(self, operation: str, outcome: Outcome) -> None:
        """As soon as the answer was heard."""
        self._write({"id": operation, "outcome": outcome, "t_reply": time.time()})

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(*paths: Path) -> list[Operation]:
    """The operations of these ledgers in the order they were sent. Raises ValueError where a whole line is no entry."""
    sent: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, Any]] = {}
    for path in paths:
        *lines, _cut_short = path.read_bytes().split(b"\n")
        for line in lines:
            entry = json.loads(line)
            if "t_send" in entry:
                if entry["id"] in sent:
                    raise ValueError(f"operation {entry['id']} was sent twice under one id")
                sent[entry["id"]] = entry
            else:
                answers[entry["id"]] = entry
    if strangers := answers.keys() - sent.keys():
        raise ValueError(f"answers to operations that were never sent: {sorted(strangers)[:5]}")
    found = [Operation(**(entry | answers.get(name, {}))) for name, entry in sent.items()]
    return sorted(found, key=lambda operation: operation.t_send)
