"""By which of a user's connections a mail goes out: the one that was named, else one of the preferred provider, else the
soundest."""

from collections.abc import Sequence

from domain.connection_events import Provider
from domain.send_commands import KnownConnection


def choose(
    connections: Sequence[KnownConnection], *, named: str | None, preference: Provider | None, promised: bool = False
) -> KnownConnection | None:
    """None where there is none to choose.

    One that was named may wait for its user to connect it again. Any other has to be active, unless the send was `promised`
    before and there is no active one left: then it waits likewise.
    """
    if named is not None:
        return next((one for one in connections if one.connection == named and one.state != "revoked"), None)
    fit = [one for one in connections if one.state == "active"]
    if not fit and promised:
        fit = [one for one in connections if one.state != "revoked"]
    # The sort is stable: of equals, the most recently connected.
    return min(fit, key=lambda one: (one.provider != preference, one.troubled), default=None)


def is_live(connections: Sequence[KnownConnection], connection: str | None) -> bool:
    """Whether this connection is among those that may be used, now or when its user has connected it again."""
    return any(one.connection == connection and one.state != "revoked" for one in connections)
