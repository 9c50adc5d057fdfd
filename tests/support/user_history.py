"""Histories of users and their connections: as the rules decide them, in a log of a test's own, and straight into tables."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from hypothesis import strategies as st

from domain.account import CreateAccount
from domain.connection_commands import CloseUser, ReportRevocation, ReportRotation, ReportUse, RevokeConnection
from domain.connection_events import Call
from domain.fields import Digest, Sealed
from domain.users import CreateUser, DeleteUser
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from gateways.log.provision import open_log, provision
from gateways.log.subscriptions import Subscriptions
from gateways.stores.postgres import pooled
from projections.catalogue import of_topic
from projections.migrate import migrate
from projections.projection import Folded, Projection
from projections.projector import Projector
from schemas import events
from schemas.envelope import Source, event_headers
from schemas.topics import ACCOUNT_EVENTS, CONNECTION_EVENTS, SEND_EVENTS
from schemas.vocabulary import Vocabulary, encode
from tests.support.connection_words import COMPOSE, authorise, failed, refreshed
from tests.support.spec import Fold

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
VOCABULARIES: dict[str, Vocabulary] = {
    ACCOUNT_EVENTS.name: events.ACCOUNT,
    CONNECTION_EVENTS.name: events.CONNECTION,
    SEND_EVENTS.name: events.SEND,
}


# ── what happened ─────────────────────────────────────────────────────────────────────────────────────────────────────


def decided(rules: Any, commands: Iterable[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], Fold]:
    """What follows from these commands, each with its key, one second after the other; and all that is known then."""
    fold, happened = Fold(rules), []
    for second, (key, command) in enumerate(commands):
        happened += [(key, event) for event in fold.run(command, START + timedelta(seconds=second), key)]
    return happened, fold


def create_user(user: str, email: str, account: str = "acc_1", external_id: str | None = None) -> CreateUser:
    return CreateUser(
        account,
        user,
        Sealed(f"sealed:{email}"),
        Digest(f"#{email}"),
        Sealed(f"sealed:name of {user}"),
        Sealed(f"sealed:{external_id}") if external_id else None,
        Digest(f"#{external_id}") if external_id else None,
    )


def user_lives(count: int) -> Iterator[tuple[str, Any]]:
    """Commands: an account's users, every fifth of them deleted, and what is refused."""
    yield "acc_1", CreateAccount("acc_1", "pro")
    for number in range(count):
        command = create_user(f"usr_{number}", f"{number}@a", external_id=f"crm-{number}" if number % 2 else None)
        yield "acc_1", command
        yield "acc_1", replace(command, user=f"usr_{number}_again")
        if number % 5 == 0:
            yield (
                "acc_1",
                DeleteUser("acc_1", command.user, "caller", command.email_digest, command.external_id_digest),
            )


def connection_lives(count: int) -> Iterator[tuple[str, Any]]:
    """Commands: so many users with two mailboxes each, in whose lives every type of event comes up."""
    for number in range(count):
        user, one, two = f"usr_{number}", f"con_{number}a", f"con_{number}b"
        yield user, authorise(one, "ada@gmail", user=user, now=START)
        yield user, authorise(two, "bob@gmail", user=user, scopes=[COMPOSE], now=START)
        yield user, authorise(f"con_{number}c", "bob@gmail", user=user)
        yield user, failed(1, "transient", "timed_out", one, user=user)
        yield user, refreshed(2, one, now=START, user=user)
        yield user, ReportUse(one, user, [Call(START, "send", "deliver", "snd_1", "ok")])
        yield user, failed(2, "reauth_required", "token_refused", one, user=user)
        yield user, refreshed(3, one, now=START, user=user)
        yield user, ReportUse(one, user, [Call(START, "send", "deliver", "snd_1", "ok")])
        yield user, failed(1, "reauth_required", "invalid_grant", two, user=user)
        if number % 2:
            yield user, authorise(two, "bob@gmail", version=2, user=user, reconnects=True)
        if number % 3 == 0:
            yield user, RevokeConnection(one, user, "caller")
            yield user, RevokeConnection(one, user, "caller")
            yield user, ReportRevocation(one, user, "failed", "unreachable")
        if number % 5 == 0:
            yield user, CloseUser(user)
    yield "keys", ReportRotation("key-2", count, START)


#: What can be said of one of four connections; what ends it comes seldom, or there would be no history.
SAID = ("connect", "refreshed", "failed", "reauth", "refused", "used") * 4 + ("revoke", "revoked", "close")


@st.composite
def connection_histories(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Commands about two users' connections. Versions go on, and now and then back: most commands are no repetitions."""
    steps = st.tuples(st.integers(0, 3), st.sampled_from(SAID), st.integers(0, 2))
    return [_said(*step, number) for number, step in enumerate(draw(st.lists(steps, min_size=20, max_size=60)), 3)]


def _said(which: int, said: str, age: int, number: int) -> tuple[str, Any]:
    user, name, version = f"usr_{which // 2}", f"con_{which}", number - age
    at = START + timedelta(seconds=100 - number if age else number)
    commands = {
        "connect": authorise(name, f"{which}@gmail", version=version, user=user),
        "refreshed": refreshed(version, name, user=user),
        "failed": failed(version, "transient", "rate_limited", name, user=user),
        "reauth": failed(version, "reauth_required", "invalid_grant", name, user=user),
        "refused": failed(version, "reauth_required", "token_refused", name, user=user),
        "used": ReportUse(name, user, [Call(at, "send", "deliver", "snd_1", "ok")]),
        "revoke": RevokeConnection(name, user, "caller"),
        "revoked": ReportRevocation(name, user, "done"),
        "close": CloseUser(user),
    }
    return user, commands[said]


@st.composite
def user_commands(draw: st.DrawFn) -> tuple[str, Any]:
    """Any command about one of many users, who have few addresses among them."""
    user, email = f"usr_{draw(st.integers(0, 30))}", f"{draw(st.integers(0, 4))}@a"
    command = create_user(user, email, external_id=draw(st.none() | st.sampled_from(["crm-1", "crm-2"])))
    if draw(st.booleans()):
        return "acc_1", command
    return "acc_1", DeleteUser("acc_1", user, "caller", command.email_digest, command.external_id_digest)


# ── into tables, without a log ────────────────────────────────────────────────────────────────────────────────────────


def as_folded(happened: Sequence[tuple[str, Any]]) -> list[Folded]:
    """Events as a projection sees them, one second of log time after the other."""
    return [
        Folded("topic", 0, position, START + timedelta(seconds=position), "", "", key, "", event)
        for position, (key, event) in enumerate(happened, 1)
    ]


async def rows_of(
    connection: Any, projection: Projection, happened: Sequence[Folded], cuts: Iterable[int]
) -> list[tuple[Any, ...]]:
    """The rows that these events make of empty tables, in batches that end at these places; nothing is left behind."""
    (table,) = projection.tables
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"set local search_path to read; truncate {table}")
        ends = sorted({*cuts, len(happened)})
        for start, end in zip([0, *ends], ends, strict=False):
            await projection.fold(connection, list(happened[start:end]))
        return [tuple(row) for row in await connection.fetch(f"select t.* from read.{table} t order by 1")]
    finally:
        await transaction.rollback()


# ── in a log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class UserLog:
    """The topics of users of one test, and the database that projections fold them into."""

    kafka: str
    prefix: str
    database: str
    log: EventLog
    pool: "asyncpg.Pool[Any]"
    clock: datetime = START
    _number: int = field(default=0)

    async def append(self, topic: str, happened: Sequence[tuple[str, Any]], *, partition: int = 0) -> None:
        """Appends events as a decider would; what was never valid comes first."""
        await self._batch(topic, happened[:1], partition, shift=7)
        for start in range(0, len(happened), 300):
            await self._batch(topic, happened[start : start + 300], partition)

    async def _batch(self, topic: str, happened: Sequence[tuple[str, Any]], partition: int, *, shift: int = 0) -> None:
        batch, (_, end) = self.log.batch(), await self.log.bounds(topic, partition)
        for position, (key, event) in enumerate(happened, end + shift):
            self._number += 1
            self.clock += timedelta(seconds=1)
            headers = event_headers(
                event_id=f"cmd_{self._number}.0",
                kind=VOCABULARIES[topic].type_of(event),
                subject=key,
                at=self.clock,
                position=position,
                cause={"ce_id": f"cmd_{self._number}"},
                source=Source(topic.replace("events", "commands"), partition, self._number),
                sequence=self._number,
            )
            batch.add([(key.encode(), encode(event), headers)])
        assert await self.log.append(topic, partition, batch) == end

    async def rows(self, table: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pool.fetch(f"select t.* from read.{table} t order by 1")]

    async def at_end(self, name: str, topic: str) -> bool:
        ends = {number: (await self.log.bounds(topic, number))[1] for number in await self.log.partitions(topic)}
        rows = await self.pool.fetch("select partition, position from checkpoints where name = $1", name)
        return dict(map(tuple, rows)) == ends


@asynccontextmanager
async def user_log(servers: Servers, database: str, prefix: str, *, partitions: int = 1) -> AsyncIterator[UserLog]:
    """An empty log with its tables."""
    await migrate(database)
    await provision(servers.kafka, prefix=prefix, partitions=partitions)
    log = EventLog(servers.kafka, prefix=prefix)
    try:
        async with pooled(database) as pool:
            await open_log(log, pool)
            yield UserLog(servers.kafka, prefix, database, log, pool)
    finally:
        await log.close()


@asynccontextmanager
async def projecting(told: UserLog, topic: str) -> AsyncIterator[Projector]:
    """A live projector of this topic, as the role `project` runs it."""
    subscriptions = Subscriptions(told.kafka, prefix=told.prefix)
    async with pooled(told.database, size=4) as pool:
        running = Projector(topic, of_topic(topic), VOCABULARIES[topic], pool, pause_seconds=0.02)
        running.subscription = subscriptions.subscribe([topic], group="projector", consumes=running, max_records=2000)
        await subscriptions.start()
        try:
            yield running
        finally:
            await running.stop()
            await subscriptions.stop()
