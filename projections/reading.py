"""From a record of the log to an event as projections see it; only what somebody folds is decoded."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from domain.outcomes import EventSkipped
from projections.projection import Folded, Projection
from schemas.envelope import Record, first
from schemas.events import LOG
from schemas.vocabulary import Vocabulary

SKIPPED: Final = LOG.types[EventSkipped].encode()


class Reader:
    """Reads the records of one topic. Given projections, it reads only the types of event that they fold."""

    def __init__(self, vocabulary: Vocabulary, projections: Iterable[Projection] = ()) -> None:
        self._vocabulary = vocabulary
        folded = {cls for projection in projections for classes in projection.folds for cls in classes}
        self._kinds = {kind.encode() for cls, kind in vocabulary.types.items() if not folded or cls in folded}

    def read(self, record: Record) -> Folded | None:
        """A valid record as an event; None where it is of a type that a newer writer has added, or that nobody folds.

        Raises KeyError or ValueError where it is not what its type says.
        """
        if kind_of(record) not in self._kinds:
            return None
        headers = first(record.headers)
        return Folded(
            record.topic,
            record.partition,
            record.offset,
            datetime.fromisoformat(headers["ce_time"]),
            headers["ce_type"],
            headers["ce_subject"],
            record.key,
            headers.get("causationid", ""),
            self._vocabulary.decode(headers["ce_type"], record.value),
        )


def kind_of(record: Record) -> bytes:
    """The record's type on the wire; raises KeyError where it has none."""
    for name, value in record.headers:
        if name == "ce_type":
            return value
    raise KeyError("ce_type")


def skips(records: Sequence[Record]) -> set[int]:
    """The positions that operators said to pass over, in these records of one partition."""
    return {
        LOG.decode(SKIPPED.decode(), record.value).position
        for record in records
        if not record.void and kind_of(record) == SKIPPED
    }
