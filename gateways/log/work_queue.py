"""Work on sends, appended to the topics it waits in and is worked off from."""

from collections.abc import Mapping
from datetime import UTC, datetime

from gateways.log.command_log import CommandLog
from schemas.envelope import command_headers, passed_on
from schemas.ids import derived_id
from schemas.vocabulary import encode
from schemas.work import WORK, Work


class WorkQueue:
    """The topics `deliver.*` and `retry.*`."""

    def __init__(self, log: CommandLog) -> None:
        self._log = log

    async def put(self, topic: str, work: Work, trace: Mapping[str, str]) -> None:
        """Appends one record, keyed by its connection. `trace` holds the headers of the record it follows from: its trace
        goes on, and the id derives from that record's, of which no other work follows.

        Raises NotPromised or OutcomeUnknown.
        """
        await self._append(topic, work, derived_id("wrk", trace["ce_id"]), trace)

    async def pass_on(self, topic: str, work: Work, found: Mapping[str, str]) -> None:
        """Appends the same work, whose headers these are, where it is next; raises as `put` does."""
        await self._append(topic, work, found["ce_id"], found, passed_on(found))

    async def _append(
        self, topic: str, work: Work, name: str, trace: Mapping[str, str], *more: tuple[str, bytes]
    ) -> None:
        headers = command_headers(
            command_id=name, kind=WORK.type_of(work), subject=work.send, at=datetime.now(UTC), trace=trace
        )
        await self._log.append(topic, work.connection, encode(work), [*headers, *more], lapses=False)
