"""Tools to plant a violation with, in what was observed of a clean history."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from schemas import events as event_schemas
from schemas.envelope import Record
from schemas.vocabulary import encode
from tests.faults.log_scan import Fact, facts
from tests.faults.observed import Observed

Plant = Callable[[Observed], Observed]


def with_headers(record: Record, **changed: str) -> Record:
    """The record with these headers as given."""
    return replace(
        record, headers=[(name, changed.get(name, value.decode()).encode()) for name, value in record.headers]
    )


def with_event(record: Record, event: Any) -> Record:
    return replace(with_headers(record, ce_type=event_schemas.MAILBOX.type_of(event)), value=encode(event))


def with_record(observed: Observed, record: Record) -> Observed:
    """The log with this record in the place of the one at its offset."""
    return replace(observed, log=[record if found.offset == record.offset else found for found in observed.log])


def moved(record: Record, offset: int) -> Record:
    """The record as it would stand, valid, at another offset."""
    return with_headers(replace(record, offset=offset), position=str(offset))


def fact(observed: Observed, kind: type, **fields: Any) -> Fact:
    """The last valid event of this kind with these fields."""
    return [
        found
        for found in facts(observed.log)
        if isinstance(found.event, kind) and all(getattr(found.event, name) == value for name, value in fields.items())
    ][-1]


def appended(observed: Observed, *events: tuple[Fact, dict[str, str]]) -> Observed:
    """The log with copies of these events behind it, their headers changed, each expecting the offset it got."""
    log, end = list(observed.log), observed.log[-1].offset + 1
    for number, (found, headers) in enumerate(events):
        log.append(moved(with_headers(found.record, **headers), end + number))
    return replace(observed, log=log)


def without_snapshots(plant: Plant) -> Plant:
    """A plant in a history where no snapshot gives the violation away."""

    @wraps(plant)
    def planted(observed: Observed) -> Observed:
        return plant(replace(observed, snapshots=()))

    return planted
