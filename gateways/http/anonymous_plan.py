"""The plan of mailboxes that belong to nobody: read once an account's event has been folded, and not for each mailbox."""

from collections.abc import Mapping

from domain.plans import ANONYMOUS_PLAN, BUILT_IN, Plan
from gateways.stores.postgres import Pool
from projections import accounts

#: The next offset a projection will fold, by (projection, topic, partition).
Positions = Mapping[tuple[str, str, int], int]


class AnonymousPlan:
    """Remembers the plan for as long as the projection that it is a row of has not moved."""

    def __init__(self) -> None:
        self._known: tuple[Positions, Plan] | None = None

    async def now(self, pool: Pool, positions: Positions) -> Plan:
        """The plan as the tables have it. Raises what Postgres raises."""
        at = {place: position for place, position in positions.items() if place[0] == accounts.PROJECTION.name}
        if at and self._known is not None and self._known[0] == at:
            return self._known[1]
        plan = await accounts.plan(pool, ANONYMOUS_PLAN) or BUILT_IN[ANONYMOUS_PLAN]
        self._known = at, plan
        return plan
