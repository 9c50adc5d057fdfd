"""Every projection there is, in the order in which one topic's are folded."""

from typing import Final

from projections import (
    accounts,
    attachments,
    connections,
    deliveries,
    feed,
    mailboxes,
    messages,
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
    sends.PROJECTION,
    deliveries.PROJECTION,
)


def of_topic(topic: str) -> list[Projection]:
    return [projection for projection in PROJECTIONS if projection.topic == topic]
