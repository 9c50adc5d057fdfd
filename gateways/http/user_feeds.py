"""The topics keyed by user that an account's stream tells of beside its mailboxes, and the scope that each takes."""

from dataclasses import dataclass, field
from typing import Final

from domain.scopes import KeyScope
from projections import connection_feed, send_feed
from projections.projection import Projection
from schemas import events
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True)
class UserFeed:
    """One such topic: its rows are the projection's. `kinds` are the types of record that may have made one."""

    projection: Projection
    vocabulary: Vocabulary
    scope: KeyScope
    kinds: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        folded = (self.vocabulary.types[cls].encode() for classes in self.projection.folds for cls in classes)
        object.__setattr__(self, "kinds", frozenset(folded))

    @property
    def table(self) -> str:
        return self.projection.tables[0]


#: By topic, in the order of their parts in a token.
USER_FEEDS: Final = {
    feed.projection.topic: feed
    for feed in (
        UserFeed(send_feed.PROJECTION, events.SEND, "sends:read"),
        UserFeed(connection_feed.PROJECTION, events.CONNECTION, "connections:read"),
    )
}
