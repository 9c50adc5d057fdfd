"""Waiting until a send has come to an end: `Prefer: wait` (RFC 7240 4.3)."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.requests import Request

from domain.send_events import SendCancelled, SendDeadLettered, SendFailed, SendSent, SendUncertain
from gateways.http.services import Services
from projections import send_lists, sends
from projections.send_lists import SendRow
from schemas.envelope import Record, first
from schemas.events import SEND

#: Seconds that an answer is held back at most, whatever is asked for.
LONGEST_SECONDS: Final = 30
WAIT: Final = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*', re.ASCII | re.IGNORECASE)
#: States that nothing leaves by itself.
ENDED: Final = frozenset({"sent", "failed", "cancelled", "uncertain", "dead_lettered"})
ENDS: Final = frozenset(
    SEND.types[kind] for kind in (SendSent, SendFailed, SendCancelled, SendUncertain, SendDeadLettered)
)


def preferred_wait(request: Request) -> int:
    """Seconds for which the caller would rather wait; 0 where nothing is said, or nothing that can be understood."""
    said = ",".join(request.headers.getlist("prefer"))
    # A preference that is stated twice counts as it was stated first (RFC 7240 2).
    found = next((found for part in said.split(",") if (found := WAIT.fullmatch(part.split(";")[0]))), None)
    return min(int(found[1]), LONGEST_SECONDS) if found else 0


class Ends:
    """Tells those who wait for a send that it has ended, in the tables as well: one listener for all of them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: dict[str, list[asyncio.Future[Record]]] = {}
        if services.tail is not None:
            services.tail.listen(self._heard)

    async def ended(self, owner: str, send: str, seconds: float) -> SendRow | None:
        """The send, once it has ended; None where it has not within this time, or is not there."""
        pool, folded = self._services.pool, self._services.folded
        with self._listening(send) as end:
            row = await send_lists.by_id(pool, owner, send)
            if row is None or row.status in ENDED:
                return row
            try:
                async with asyncio.timeout(seconds):
                    record = await end
                    await folded.reached(
                        sends.PROJECTION.name, record.topic, record.partition, record.offset + 1, seconds=seconds
                    )
            except TimeoutError:
                return None
        row = await send_lists.by_id(pool, owner, send)
        return row if row is not None and row.status in ENDED else None

    @contextmanager
    def _listening(self, send: str) -> Iterator[asyncio.Future[Record]]:
        end: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(send, [])
        waiting.append(end)
        try:
            yield end
        finally:
            waiting.remove(end)
            if not waiting:
                self._waiting.pop(send, None)

    def _heard(self, record: Record, _: str) -> None:
        if not self._waiting:
            return
        headers = first(record.headers)
        if headers["ce_type"] not in ENDS:
            return
        for end in self._waiting.get(headers["ce_subject"], []):
            if not end.done():
                end.set_result(record)
