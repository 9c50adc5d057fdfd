"""What is seen of the system once it is quiet again, as plain data: what the checker compares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from schemas.envelope import Record
from schemas.snapshots import Checkpoint
from tests.faults.ledger import Operation

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule` as in the checker's list, `id` of what it was seen on (an operation, a message, an offset, a blob)."""

    rule: str
    id: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule} [{self.id}] {self.sentence}"


@dataclass(frozen=True, slots=True)
class Shown:
    """One message as the public API answers it: `sha256` is of the raw bytes that were downloaded."""

    message: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The snapshot of one partition: its checkpoint and all of its documents, sequences included."""

    partition: int
    checkpoint: Checkpoint
    documents: Mapping[Key, Any]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds."""

    descriptors: int
    tasks: int
    connections: int
    resident_bytes: int


@dataclass(frozen=True)
class Observed:
    """Everything seen of the mailbox context. What was not looked at is left empty, and its rules say nothing.

    `log`: every record of the truth topic, void ones included. `inputs`: every record of its inputs that is still kept.
    `shown`: by mailbox, what the API lists, asked at `asked_at`; a mailbox it does not know is not among them.
    `blobs`: by name, seconds since it was written. `dumps`: by name ("live", "first replay"), the same tables.
    `streams`: by reader, partition and offset of what it was sent, in order. `resources`: by process, before and after.
    """

    operations: Sequence[Operation] = ()
    log: Sequence[Record] = ()
    inputs: Sequence[Record] = ()
    shown: Mapping[str, Sequence[Shown]] | None = None
    asked_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    blobs: Mapping[str, float] | None = None
    snapshots: Sequence[Snapshot] = ()
    dumps: Mapping[str, bytes] = field(default_factory=dict)
    streams: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    resources: Mapping[str, tuple[Resources, Resources]] = field(default_factory=dict)
