"""Work on sends, appended to the topics it waits in and is worked off from."""

from collections.abc import Mapping
from datetime import UTC, datetime

from gateways.log.command_log import CommandLog
from schemas.envelope import command_headers
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
        headers = command_headers(
            command_id=derived_id("wrk", trace["ce_id"]),
            kind=WORK.type_of(work),
            subject=work.send,
            at=datetime.now(UTC),
            trace=trace,
        )
        await self._log.append(topic, work.connection, encode(work), headers, lapses=False)
