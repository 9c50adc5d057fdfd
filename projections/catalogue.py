"""Every projection there is, in the order in which one topic's are folded."""

from typing import Final

from projections import accounts, feed, mailboxes, messages, timers
from projections.projection import Projection

PROJECTIONS: Final[tuple[Projection, ...]] = (
    mailboxes.PROJECTION,
    messages.PROJECTION,
    timers.PROJECTION,
    feed.PROJECTION,
    accounts.PROJECTION,
)


def of_topic(topic: str) -> list[Projection]:
    return [projection for projection in PROJECTIONS if projection.topic == topic]
