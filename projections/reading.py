"""From a record of the log to an event as projections see it; only what somebody folds is decoded."""

from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from typing import Final

from domain.outcomes import EventSkipped
from projections.projection import Folded, Projection
from schemas.envelope import Record
from schemas.events import LOG
from schemas.vocabulary import Vocabulary

SKIPPED: Final = LOG.types[EventSkipped].encode()


class UnreadableEvent(ValueError):
    """A valid record is not what its type says; `position` says which."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Reader:
    """Reads the records of one topic. Given projections, it reads only the types of event that they fold."""

    def __init__(self, vocabulary: Vocabulary, projections: Iterable[Projection] = ()) -> None:
        self._vocabulary = vocabulary
        folded = {cls for projection in projections for classes in projection.folds for cls in classes}
        self._kinds = {kind.encode(): kind for cls, kind in vocabulary.types.items() if not folded or cls in folded}

    def events(self, records: Iterable[Record], *, skipped: Container[int] = ()) -> list[Folded]:
        """The valid ones among these records that somebody folds, without those skipped. Raises UnreadableEvent."""
        events = []
        for record in records:
            headers = headers_of(record)
            if headers.get("position") == b"%d" % record.offset and record.offset not in skipped:
                try:
                    seen = self._read(record, headers)
                except (KeyError, ValueError) as error:
                    raise UnreadableEvent(record.offset) from error
                if seen is not None:
                    events.append(seen)
        return events

    def read(self, record: Record) -> Folded | None:
        """A valid record as an event; None where it is of a type that a newer writer has added, or that nobody folds.

        Raises KeyError or ValueError where it is not what its type says.
        """
        return self._read(record, headers_of(record))

    def _read(self, record: Record, headers: Mapping[str, bytes]) -> Folded | None:
        kind = self._kinds.get(headers["ce_type"])
        if kind is None:
            return None
        return Folded(
            record.topic,
            record.partition,
            record.offset,
            datetime.fromisoformat(headers["ce_time"].decode()),
            kind,
            headers["ce_subject"].decode(),
            record.key,
            headers.get("causationid", b"").decode(),
            self._vocabulary.decode(kind, record.value),
            headers["traceparent"].decode("ascii", "replace") if "traceparent" in headers else None,
        )


def headers_of(record: Record) -> dict[str, bytes]:
    """Header name → value, of a repeated name the first: as `schemas.envelope.first`, but not decoded for nobody's use."""
    return dict(reversed(record.headers))


def skips(records: Iterable[Record]) -> set[int]:
    """The positions that operators said to pass over, in these records of one partition."""
    return {
        LOG.decode(SKIPPED.decode(), record.value).position
        for record in records
        if ("ce_type", SKIPPED) in record.headers and not record.void
    }
