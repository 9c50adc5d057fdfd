"""What streams tell of connections: one row for each event that changes what state a connection is in.

Most events of a connection don't name its account, and a refresh is news only where it mends what was broken. So beside the
rows there is, for each connection, whose it is and its state.
"""

from collections.abc import Iterator
from typing import Any, Final

from domain.connection_events import (
    ConnectionAuthorised,
    ConnectionRestored,
    ReauthorisationRequired,
    RevocationRequested,
    TokenRefreshed,
)
from projections import user_feed
from projections.in_order import Change, change_in_order
from projections.projection import Connection, Folded, Projection
from schemas import topics

TABLE: Final = "connection_feed"
#: The name a stream gives to each event it tells of, and the state that the connection is in from then on.
TOLD: Final[dict[type, tuple[str, str]]] = {
    ConnectionAuthorised: ("connection.authorised", "active"),
    ReauthorisationRequired: ("connection.reauth_required", "reauth_required"),
    TokenRefreshed: ("connection.restored", "active"),
    ConnectionRestored: ("connection.restored", "active"),
    RevocationRequested: ("connection.revoked", "revoked"),
}
STATES_DDL: Final = """
create table connection_feed_states (
    connection text primary key,
    owner text not null,
    state text not null
);
"""
KNOWN: Final = """
insert into connection_feed_states (connection, owner, state) values ($1, $2, 'active')
on conflict (connection) do update set state = 'active'
"""
NEWS: Final = """
insert into connection_feed (partition, position, owner, user_id, connection, type, status, at, code)
select $1, $2, owner, $3, connection, $5, $6, $7, $8 from connection_feed_states where connection = $4
"""
RESTORED: Final = NEWS + " and state = 'reauth_required'"
STATE: Final = "update connection_feed_states set state = $2 where connection = $1"


async def _tell(connection: "Connection[Any]", events: list[Folded]) -> None:
    await change_in_order(connection, (change for seen in events for change in _changes(seen)))
    await user_feed.let_go(connection, TABLE, events[-1].partition)


def _changes(seen: Folded) -> Iterator[Change]:
    event = seen.event
    if isinstance(event, TokenRefreshed) and event.refused_at_calls:
        return
    name, state = TOLD[type(event)]
    code = event.code if isinstance(event, ReauthorisationRequired) else None
    news = (seen.partition, seen.position, event.user, event.connection, name, state, seen.at, code)
    if isinstance(event, ConnectionAuthorised):
        yield event.connection, KNOWN, (event.connection, event.owner)
    yield event.connection, RESTORED if isinstance(event, TokenRefreshed | ConnectionRestored) else NEWS, news
    yield event.connection, STATE, (event.connection, state)


PROJECTION: Final = Projection(
    name=TABLE,
    topic=topics.CONNECTION_EVENTS.name,
    tables=(TABLE, "connection_feed_states"),
    ddl=user_feed.ddl(TABLE) + STATES_DDL.lstrip(),
    folds={tuple(TOLD): _tell},
)
