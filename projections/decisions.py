"""What came of commands that people gave: a row for each that was decided, for whoever could not be told in time.

There is one read model for each context, since each folds one topic. Rows are kept for thirty days by the log's time. A mail
that was asked for and taken on has none where its id derives from the command's: it stands among the sends itself.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from domain.attachments import AttachmentDeleted, AttachmentRefused, AttachmentStored
from domain.callbacks import CallbackRefused, CallbackRequested, CallbackResent
from domain.connection_events import (
    ConnectionAuthorised,
    ConnectionCommandRefused,
    ConnectionRefused,
    ConnectionRevoked,
    RevocationRequested,
)
from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from domain.send_events import (
    SendCancelled,
    SendCommandRefused,
    SendMoved,
    SendRedriven,
    SendRefused,
    SendRepeated,
    SendRequested,
)
from domain.users import UserCreated, UserDeleted, UserRefused
from domain.webhook_words import TEST
from domain.webhooks import (
    AccountSecretRotated,
    WebhookAdded,
    WebhookEnabled,
    WebhookRefused,
    WebhookRemoved,
    WebhookRotated,
)
from projections.projection import Connection, Folded, Projection, columns
from schemas import topics

#: Days for which it can be asked what came of a command.
KEPT_DAYS: Final = 30
OUTCOMES: Final = (CommandFailed, CommandLapsed, CommandUnreadable)
DECIDED: Final[Mapping[str, tuple[type, ...]]] = {
    topics.ACCOUNT_EVENTS.name: (
        UserCreated,
        UserDeleted,
        UserRefused,
        AttachmentStored,
        AttachmentDeleted,
        AttachmentRefused,
        WebhookAdded,
        WebhookRotated,
        WebhookEnabled,
        WebhookRemoved,
        WebhookRefused,
        AccountSecretRotated,
    ),
    topics.CONNECTION_EVENTS.name: (
        ConnectionAuthorised,
        ConnectionRefused,
        RevocationRequested,
        ConnectionRevoked,
        ConnectionCommandRefused,
    ),
    topics.SEND_EVENTS.name: (
        SendRequested,
        SendRefused,
        SendRepeated,
        SendMoved,
        SendCancelled,
        SendRedriven,
        SendCommandRefused,
    ),
    topics.WEBHOOK_EVENTS.name: (CallbackRequested, CallbackResent, CallbackRefused),
}
Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """What came of one command. `subject` is what it was about, `reason` None where it was carried out.

    `reason` is `failed` or `lapsed` where it never reached its rules, else what the event said; `instead` is what stands for
    it, or in its way, where there is such.
    """

    command: str
    subject: str
    reason: str | None
    instead: str | None
    partition: int
    position: int


ROW: Final = "command, subject, reason, instead, partition, position"


def table_of(topic: str) -> str:
    """`account_decisions` of `account.events`."""
    return f"{topic.partition('.')[0]}_decisions"


def _projection(topic: str, types: tuple[type, ...]) -> Projection:
    table = table_of(topic)
    ddl = f"""
create table {table} (
    command text primary key,
    subject text not null,
    reason text,
    instead text,
    at timestamptz not null,
    partition integer not null,
    position bigint not null
);
create index {table}_kept on {table} (partition, at);
"""
    return Projection(table, topic, (table,), ddl, {(*types, *OUTCOMES): _fold(table)})


def _fold(table: str) -> Callable[["Connection[Any]", list[Folded]], Awaitable[None]]:
    inserted = (
        f"insert into {table} ({ROW}, at) select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], "  # noqa: S608 - names of our own
        "$5::int[], $6::bigint[], $7::timestamptz[]) on conflict (command) do nothing"
    )
    let_go = f"delete from {table} where partition = $1 and at < $2"  # noqa: S608 - a name of our own

    async def fold(connection: "Connection[Any]", events: list[Folded]) -> None:
        """The first event of a command is the decision on it, as whoever asked would have heard."""
        rows = [
            (seen.causation, seen.subject, *_said(seen.event), seen.partition, seen.position, seen.at)
            for seen in events
            if seen.causation and not _is_told(seen.event) and not _is_named_by(seen.causation, seen.event)
        ]
        if rows:
            await connection.execute(inserted, *columns(rows))
            await connection.execute(let_go, events[-1].partition, rows[-1][-1] - timedelta(days=KEPT_DAYS))

    return fold


def _is_told(event: object) -> bool:
    """Whether it is a delivery that nobody asked for: something happened that an account is told of."""
    return isinstance(event, CallbackRequested) and event.callback.type != TEST


def send_of(command: str) -> str:
    """The id of the mail that this command asks for, unless an idempotency key had named it before."""
    return f"snd_{command.removeprefix('cmd_')}"


def _is_named_by(command: str, event: object) -> bool:
    return isinstance(event, SendRequested) and event.send == send_of(command)


def _said(event: Any) -> tuple[str | None, str | None]:
    """Why it was not carried out, and what stands for it instead."""
    match event:
        case CommandLapsed():
            return "lapsed", None
        case CommandFailed() | CommandUnreadable():
            return "failed", None
        case SendRepeated(of=earlier):
            return "repeated", earlier
        case (
            UserRefused()
            | AttachmentRefused()
            | WebhookRefused()
            | ConnectionRefused()
            | ConnectionCommandRefused()
            | SendRefused()
            | SendCommandRefused()
            | CallbackRefused()
        ):
            return event.reason, getattr(event, "of", None)
        case _:
            return None, None


PROJECTIONS: Final = tuple(_projection(topic, types) for topic, types in DECIDED.items())


# ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def of_commands(pool: "Pool[Any]", topic: str, commands: Sequence[str]) -> dict[str, DecisionRow]:
    """Those of these commands that have been decided, by id; `topic` is the one that holds what came of them."""
    rows = await pool.fetch(f"select {ROW} from {table_of(topic)} where command = any($1)", commands)  # noqa: S608 - names of our own
    return {row["command"]: DecisionRow(*row) for row in rows}
