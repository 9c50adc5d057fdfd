"""Histories of mailboxes in a log of a test's own, and the tables they are folded into."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from domain.fields import Digest, Sealed
from domain.mailbox_events import (
    MailboxCreated,
    MailboxDeleted,
    MailboxExtended,
    MessageDeleted,
    MessageParsed,
    MessageRead,
    MessageReceived,
    RawPlace,
)
from domain.plans import BUILT_IN
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from gateways.log.provision import open_log, provision
from gateways.log.subscriptions import Subscriptions
from gateways.stores.postgres import pooled
from projections.catalogue import of_topic
from projections.migrate import migrate
from projections.projector import Projector
from schemas import events
from schemas.envelope import Source, event_headers
from schemas.topics import MAILBOX_EVENTS
from schemas.vocabulary import encode

TOPIC = MAILBOX_EVENTS.name
START = datetime(2026, 1, 5, 12, tzinfo=UTC)


@dataclass
class MailLog:
    """`mailbox.events` of one test, and the database its projections fold it into."""

    kafka: str
    prefix: str
    database: str
    log: EventLog
    pool: "asyncpg.Pool[Any]"
    #: A record that was never valid is left before every batch from now on.
    with_void: bool = False
    clock: datetime = START
    _number: int = field(default=0)

    async def append(self, happened: Sequence[Any], *, partition: int = 0, kind: str | None = None) -> int:
        """Appends events as a decider would, one second of log time after the other; the position of the first."""
        if self.with_void:
            await self._batch(happened[:1], partition, shift=7)
        first = (await self.log.bounds(TOPIC, partition))[1]
        for start in range(0, len(happened), 300):
            assert await self._batch(happened[start : start + 300], partition, kind=kind) == first + start
        return first

    async def _batch(self, happened: Sequence[Any], partition: int, *, shift: int = 0, kind: str | None = None) -> int:
        end = (await self.log.bounds(TOPIC, partition))[1]
        batch = self.log.batch()
        for position, event in enumerate(happened, end + shift):
            self._number += 1
            self.clock += timedelta(seconds=1)
            headers = event_headers(
                event_id=f"cmd_{self._number}.0",
                kind=kind or events.MAILBOX.type_of(event),
                subject=event.mailbox,
                at=self.clock,
                position=position,
                cause={"ce_id": f"cmd_{self._number}"},
                source=Source("mailbox.commands", partition, self._number),
                sequence=self._number,
            )
            batch.add([(event.owner.encode(), encode(event), headers)])
        return await self.log.append(TOPIC, partition, batch)

    async def end(self, partition: int = 0) -> int:
        return (await self.log.bounds(TOPIC, partition))[1]

    async def ends(self) -> dict[int, int]:
        return {partition: await self.end(partition) for partition in await self.log.partitions(TOPIC)}

    async def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Every row of a table, each the same way whoever wrote it."""
        return [tuple(row) for row in await self.pool.fetch(f"select t.* from read.{table} t order by t::text")]

    async def checkpoints(self, projection: str = "messages") -> dict[int, int]:
        rows = await self.pool.fetch("select partition, position from checkpoints where name = $1", projection)
        return dict(map(tuple, rows))


@asynccontextmanager
async def mail_log(servers: Servers, database: str, prefix: str, *, partitions: int = 1) -> AsyncIterator[MailLog]:
    """An empty log with its tables."""
    await migrate(database)
    await provision(servers.kafka, prefix=prefix, partitions=partitions)
    log = EventLog(servers.kafka, prefix=prefix)
    try:
        async with pooled(database) as pool:
            await open_log(log, pool)
            yield MailLog(servers.kafka, prefix, database, log, pool)
    finally:
        await log.close()


@asynccontextmanager
async def projecting(
    mail: MailLog, *, group: str = "projector", projector: type[Projector] = Projector
) -> AsyncIterator[Projector]:
    """A live projector with connections of its own, as the role `project` runs it."""
    subscriptions = Subscriptions(mail.kafka, prefix=mail.prefix)
    async with pooled(mail.database, size=4) as pool:
        running = projector(TOPIC, of_topic(TOPIC), events.MAILBOX, pool, pause_seconds=0.02)
        running.subscription = subscriptions.subscribe([TOPIC], group=group, consumes=running, max_records=2000)
        await subscriptions.start()
        try:
            yield running
        finally:
            await running.stop()
            await subscriptions.stop()


def mailbox(name: str, *, address: str | None = None, at: datetime = START) -> MailboxCreated:
    return MailboxCreated(
        mailbox=name,
        owner=name,
        address_digest=Digest(f"#{address or name}"),
        address=Sealed(f"sealed:{name}"),
        created_at=at,
        expires_at=at + timedelta(hours=1),
        plan="free",
        plan_position=None,
        limits=BUILT_IN["free"].limits,
        token_version=1,
    )


def message(
    name: str, box: str, *, number: int = 1, state: Any = "whole", body: str = "sealed:body"
) -> MessageReceived:
    shown = state == "whole"
    return MessageReceived(
        message=name,
        mailbox=box,
        owner=box,
        number=number,
        received_at=START,
        size=len(body),
        sha256="0" * 64,
        via="smtp",
        envelope=Sealed(f"sealed:envelope of {name}"),
        state=state,
        raw=RawPlace(0, number),
        summary=Sealed(f"sealed:summary of {name}") if shown else None,
        content=Sealed(body) if shown else None,
    )


def lives(count: int, *, prefix: str = "", body: str = "sealed:body") -> Iterator[Any]:
    """So many mailboxes, each with a life of seven or eight events: every type there is comes up."""
    for number in range(count):
        box = f"mbx_{prefix}{number}"
        kept, gone = f"msg_{prefix}{number}a", f"msg_{prefix}{number}b"
        yield mailbox(box)
        yield message(kept, box, body=body)
        yield message(gone, box, number=2, state="parsing")
        yield MailboxExtended(box, box, START + timedelta(hours=2))
        yield MessageParsed(gone, box, box, "whole", Sealed("sealed:s"), Sealed(body))
        yield MessageRead(kept, box, box)
        yield MessageDeleted(gone, box, box, by="caller")
        if number % 5 == 0:
            yield MailboxDeleted(box, box, by="caller", at=START + timedelta(minutes=5))
