"""Reading a truth topic as any reader must: dense, from `log.opened` on, void records left out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from domain.outcomes import InputReset
from schemas import commands, events, raw_mail
from schemas.envelope import Record, Source, first
from schemas.raw_mail import RawMail
from schemas.vocabulary import Vocabulary
from tests.faults.observed import Violation

COMMANDS = {found.context: found for found in vars(commands).values() if isinstance(found, Vocabulary)}


@dataclass(frozen=True)
class Fact:
    """One valid event of the context."""

    record: Record
    headers: dict[str, str]
    event: Any

    @property
    def source(self) -> Source:
        return Source.read(self.headers["srcpos"])

    @property
    def place(self) -> str:
        return f"{self.record.partition}/{self.record.offset}"


def partitions(records: Iterable[Record]) -> dict[int, list[Record]]:
    """By partition, in the order of their offsets."""
    found: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        found[record.partition].append(record)
    return {number: sorted(rest, key=lambda record: record.offset) for number, rest in sorted(found.items())}


def facts(records: Iterable[Record], vocabulary: Vocabulary = events.MAILBOX) -> list[Fact]:
    """The valid events of the context; `log.*` records are about the log itself."""
    valid = [(record, first(record.headers)) for record in records if not record.void]
    return [
        Fact(record, headers, vocabulary.decode(headers["ce_type"], record.value))
        for record, headers in valid
        if not headers.get("ce_type", "").startswith("log.")
    ]


@dataclass(frozen=True)
class Claim:
    """A word of the log itself: every record of these inputs before the offset has been decided, or is passed over."""

    offset: int
    place: str
    inputs: dict[str, int]


def claims(records: Iterable[Record]) -> list[Claim]:
    found = []
    for record in records:
        kind = first(record.headers).get("ce_type")
        if not record.void and kind in ("log.inputs-advanced.v1", "log.input-reset.v1"):
            said = events.LOG.decode(kind, record.value)
            inputs = {said.topic: said.to_offset} if isinstance(said, InputReset) else said.inputs
            found.append(Claim(record.offset, f"{record.partition}/{record.offset}", inputs))
    return found


def command_of(record: Record) -> Any:
    """The command or the `RawMail` that an input record holds; None where it can't be read."""
    headers = first(record.headers)
    try:
        if "mail" in headers:
            return raw_mail.read(record)
        if headers.get("ce_type") and headers.get("ce_id"):
            vocabulary = COMMANDS.get(record.topic.partition(".")[0], commands.MAILBOX)
            return vocabulary.decode(headers["ce_type"], record.value)
    except ValueError:
        pass
    return None


def raw_mails(inputs: Iterable[Record]) -> Iterator[RawMail]:
    return (found for record in inputs if isinstance(found := command_of(record), RawMail))


def check_offsets(number: int, records: list[Record]) -> Iterator[Violation]:
    """Offsets are dense from 0, the log says which it is first, and no writer ever knew a longer log than there is."""
    if records and (records[0].offset != 0 or records[0].void or not _opens(records[0])):
        yield Violation("log opened", f"{number}/{records[0].offset}", "The partition does not begin with log.opened.")
    for before, after in pairwise(records):
        if after.offset != before.offset + 1:
            yield Violation(
                "log dense",
                f"{number}/{after.offset}",
                f"It comes right after offset {before.offset}: records are missing.",
            )
    for record in records:
        position = first(record.headers).get("position", "")
        if not position.isdigit():
            yield Violation("log position", f"{number}/{record.offset}", "A record of a truth topic has no position.")
        elif int(position) > record.offset:
            yield Violation(
                "log truncated",
                f"{number}/{record.offset}",
                f"Its writer knew the log up to {position}: what it knew is no longer there.",
            )


def _opens(record: Record) -> bool:
    return first(record.headers).get("ce_type") == "log.opened.v1"


def check_order(valid: list[Fact]) -> Iterator[Violation]:
    """`sequence` counts each subject's events from 1, and the time they were decided at never steps back."""
    sequences: dict[str, int] = defaultdict(int)
    latest = ""
    for fact in valid:
        subject, sequence = fact.headers["ce_subject"], int(fact.headers["sequence"])
        if sequence != sequences[subject] + 1:
            yield Violation(
                "C5 order", fact.place, f"Event {sequence} of {subject} comes after its event {sequences[subject]}."
            )
        sequences[subject] = sequence
        if fact.headers["ce_time"] < latest:
            yield Violation("C5 order", fact.place, f"It was decided at {fact.headers['ce_time']}, after {latest}.")
        latest = max(latest, fact.headers["ce_time"])
