"""What a context tells the decider's loop about itself, and what the loop needs of the house."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from handlers.documents import Key, ReadsDocuments
from schemas.envelope import Headers, Record
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is no command: why, from the closed list of `CommandUnreadable`."""

    cause: Any


ReadsCommands = Callable[[Sequence[Record]], Awaitable[list[Any]]]


@dataclass(frozen=True)
class Context:
    """Everything the loop needs to know of one context.

    `version` is the fold's: a new one folds the log afresh. `inputs` are read in this order of preference; a reader turns
    records into commands or `Unreadable`. `subject` names what a command is about, for `ce_subject` and `sequence`.
    """

    name: str
    version: int
    events: str
    inputs: Mapping[str, ReadsCommands]
    vocabulary: Vocabulary
    needs: Callable[[Any, str], list[Key]]
    decide: Callable[[Mapping[Key, Any], Any, datetime], list[Any]]
    touches: Callable[[Any], list[Key]]
    evolve: Callable[[Mapping[Key, Any], Any], Mapping[Key, Any]]
    subject: Callable[[Any], str]
    read_document: ReadsDocuments

    @property
    def snapshot(self) -> str:
        return f"{self.name}.v{self.version}"


class Batch(Protocol):
    """Records appended whole or not at all."""

    def fits(self, records: list[tuple[bytes, bytes, Headers]]) -> bool: ...

    def add(self, records: list[tuple[bytes, bytes, Headers]]) -> None: ...

    def __len__(self) -> int: ...


class Log(Protocol):
    """The truth topics, as `gateways/log/event_log.py` has them. Any error means: nothing is known to have happened."""

    def batch(self) -> Any: ...

    async def append(self, topic: str, partition: int, batch: Any) -> int: ...

    def read_on(
        self, topic: str, partition: int, position: int, *, floor: int = 0
    ) -> AsyncGenerator[list[Record], None]: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...


class KeepsDeadLetters(Protocol):
    """Where a record that could not be handled is kept whole."""

    async def keep(self, record: Record, *, cause: str) -> str:
        """Returns the dead letter's id, the same for the same record, once it is there for good."""
        ...


class Seeks(Protocol):
    def seek(self, topic: str, partition: int, offset: int) -> bool: ...


def json_commands(vocabulary: Vocabulary) -> ReadsCommands:
    """Reads the records of a `*.commands` topic."""

    async def read(records: Sequence[Record]) -> list[Any]:
        return [_command(vocabulary, record) for record in records]

    return read


def _command(vocabulary: Vocabulary, record: Record) -> Any:
    kind = record.header("ce_type")
    if not kind or not record.header("ce_id"):
        return Unreadable("missing_header")
    if kind not in vocabulary.types.values():
        return Unreadable("unknown_type")
    try:
        return vocabulary.decode(kind, record.value)
    except ValueError:
        return Unreadable("invalid_body")
