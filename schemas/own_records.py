"""Records that a truth topic holds about itself (`log.…`): they have no key, and no projection applies them."""

from datetime import datetime

from domain.outcomes import LogEvent
from schemas.envelope import Headers, Source, event_headers
from schemas.events import LOG
from schemas.vocabulary import encode


def own_record(
    event_id: str, event: LogEvent, at: datetime, *, position: int, source: Source
) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of one, to be appended at `position`. `source` is the record that it speaks of."""
    headers = event_headers(
        event_id=event_id,
        kind=LOG.type_of(event),
        subject=event_id,
        at=at,
        position=position,
        cause={},
        source=source,
        sequence=1,
    )
    return b"", encode(event), headers
