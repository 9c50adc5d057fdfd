"""Every projection there is, in the order in which one topic's are folded."""

from typing import Final

from projections import (
    accounts,
    attachments,
    connection_feed,
    connections,
    decisions,
    deliveries,
    feed,
    mailboxes,
    messages,
    send_feed,
    sends,
    timers,
    users,
    webhooks,
)
from projections.projection import Projection

PROJECTIONS: Final[tuple[Projection, ...]] = (
    mailboxes.PROJECTION,
    messages.PROJECTION,
    timers.PROJECTION,
    feed.PROJECTION,
    accounts.PROJECTION,
    users.PROJECTION,
    attachments.PROJECTION,
    webhooks.PROJECTION,
    connections.PROJECTION,
    connection_feed.PROJECTION,
    sends.PROJECTION,
    send_feed.PROJECTION,
    deliveries.PROJECTION,
    *decisions.PROJECTIONS,
)


def of_topic(topic: str) -> list[Projection]:
    return [projection for projection in PROJECTIONS if projection.topic == topic]
