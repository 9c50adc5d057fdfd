"""Every projection there is, in the order in which one topic's are folded."""

from typing import Final

from projections import accounts, connections, feed, mailboxes, messages, timers, users
from projections.projection import Projection

PROJECTIONS: Final[tuple[Projection, ...]] = (
    mailboxes.PROJECTION,
    messages.PROJECTION,
    timers.PROJECTION,
    feed.PROJECTION,
    accounts.PROJECTION,
    users.PROJECTION,
    connections.PROJECTION,
)


def of_topic(topic: str) -> list[Projection]:
    return [projection for projection in PROJECTIONS if projection.topic == topic]
