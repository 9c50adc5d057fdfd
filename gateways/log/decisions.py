"""Asking for a decision and waiting until it can be read (DESIGN 4, rule 9)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateways.log.command_log import CommandLog
from gateways.log.tail import Tail
from schemas.envelope import Record
from schemas.ids import new_id
from schemas.vocabulary import Vocabulary

#: Seconds from the acknowledged command to its decision in the tables; past that the outcome is unknown to the caller.
SETTLE_SECONDS: Final = 2.0


class Unsettled(Exception):
    """The command is in the log, but what follows from it can't be read yet."""

    def __init__(self, command_id: str) -> None:
        super().__init__(command_id)
        self.command_id = command_id


class Folded(Protocol):
    async def reached(self, projection: str, topic: str, partition: int, position: int, *, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """The first event a command led to, folded by the projection that was named."""

    command_id: str
    event: Any
    record: Record

    @property
    def log_position(self) -> str:
        """`topic-partition:next offset`, as `X-Log-Position` and resume tokens say it."""
        return f"{self.record.topic}-{self.record.partition}:{self.record.offset + 1}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A command to be decided: where it goes, what it says, and which projection makes the answer readable."""

    topic: str
    key: str
    subject: str
    command: Any
    projection: str
    command_id: str = field(default_factory=lambda: new_id("cmd"))


class Decisions:
    """Appends a command and waits for its decision; one for each context."""

    def __init__(
        self, log: CommandLog, tail: Tail, folded: Folded, *, commands: Vocabulary, events: Vocabulary
    ) -> None:
        self._log = log
        self._tail = tail
        self._folded = folded
        self._commands = commands
        self._events = events

    async def ask(self, asked: Asked, *, trace: Mapping[str, str] | None = None) -> Decision:
        """Raises NotPromised (nothing happened), OutcomeUnknown, or Unsettled (it will be decided, later)."""
        command_id = asked.command_id
        decided = self._tail.decision_on(command_id)
        try:
            await self._log.command(
                asked.topic,
                asked.key,
                asked.command,
                vocabulary=self._commands,
                subject=asked.subject,
                command_id=command_id,
                trace=trace,
            )
            async with asyncio.timeout(SETTLE_SECONDS):
                record = await decided
                await self._folded.reached(
                    asked.projection, record.topic, record.partition, record.offset + 1, seconds=SETTLE_SECONDS
                )
        except TimeoutError as error:
            raise Unsettled(command_id) from error
        finally:
            self._tail.forget(command_id)
        event = self._events.decode(record.header("ce_type"), record.value)
        return Decision(command_id, event, record)
