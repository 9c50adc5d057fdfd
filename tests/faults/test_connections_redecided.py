"""What the decider of connections wrote into a real log, decided again by the rules alone: both say the same."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from domain.connection_commands import ReportRefresh, ReportRotation, ReportUse, RevokeConnection
from domain.connection_events import Call, TokenRefreshed
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from gateways.settings import Settings
from handlers.connections import FOLD_VERSION
from main import House, assembled, prepare
from schemas import commands, events
from schemas.envelope import Record, command_headers
from schemas.topics import CONNECTION_COMMANDS, CONNECTION_EVENTS
from tests.faults import log_scan, looking
from tests.faults.observed import Snapshot, Violation
from tests.faults.redecide import Redecided
from tests.support.connection_words import authorise, failed, refreshed
from tests.support.spec import CONNECTION
from tests.support.user_history import connection_lives
from tests.support.waiting import until

COMMANDS, EVENTS = CONNECTION_COMMANDS.name, CONNECTION_EVENTS.name
END = ReportRotation("the end", 0, datetime(2026, 1, 1, tzinfo=UTC))


@dataclass
class Seen:
    """What is there of one partition once it is quiet."""

    log: list[Record]
    inputs: list[Record]
    snapshots: list[Snapshot]

    def violations(self) -> list[Violation]:
        again = Redecided(0, self.inputs, self.snapshots, log_scan.claims(self.log), rules=CONNECTION)
        valid = log_scan.facts(self.log, events.CONNECTION)
        again.walk(valid, self.log[-1].offset + 1)
        return [*log_scan.check_offsets(0, self.log), *log_scan.check_order(valid), *again.violations]


def random_commands(count: int, seed: int) -> list[tuple[str, Any]]:
    """Reports that come late, twice or for nothing, and tokens of all ages."""
    chance, found = random.Random(seed), []
    now = datetime.now(UTC)
    for _ in range(count):
        user, version = f"usr_r{chance.randrange(3)}", chance.randrange(1, 9)
        name = f"con_{user[-1]}{chance.randrange(4)}"
        connect = authorise(name, f"{name[-1]}@gmail", version=version, user=user, now=now)
        choices: list[Any] = [
            connect,
            connect,
            replace(connect, scopes=[]),
            refreshed(version, name, user=user, now=now - timedelta(hours=chance.randrange(3))),
            failed(version, "transient", "timed_out", name, user=user, retry_after=chance.choice([None, 1.5, 1e30])),
            failed(version, "reauth_required", "invalid_grant", name, user=user),
            ReportUse(name, user, [Call(now, "send", "deliver", "snd_1", "ok")]),
            RevokeConnection(name, user, "caller"),
            ReportRefresh(name, user, version, "reauth_required", "timer", code="timed_out"),
        ]
        found.append((user, chance.choice(choices)))
    return found


@asynccontextmanager
async def working(servers: Servers, database: str, prefix: str, folder: Path) -> AsyncIterator[House]:
    settings = Settings(
        data=folder, kafka=servers.kafka, database_url=SecretStr(database), topic_prefix=prefix, partitions=1
    )
    await prepare(settings)
    async with assembled(settings, ["work"]) as house:
        yield house


async def records(house: House, topic: str) -> list[Record]:
    log = EventLog(house.kafka, prefix=house.prefix)
    try:
        _, end = await log.bounds(topic, 0)
        found: list[Record] = []
        async for batch in log.read_on(topic, 0, 0):
            found += batch
            if found[-1].offset + 1 >= end:
                break
        return found
    finally:
        await log.close()


@pytest.fixture
async def seen(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> Seen:
    async with working(servers, database, topic_prefix, tmp_path) as house:
        for key, command in [*connection_lives(12), *random_commands(300, 7), ("keys", END)]:
            await house.command_log.command(
                COMMANDS, key, command, vocabulary=commands.CONNECTION, subject=getattr(command, "connection", key)
            )
            if key == "keys" and command is not END:
                headers = command_headers(
                    command_id="cmd_odd", kind="connection.odd.v1", subject=key, at=END.finished_at
                )
                await house.command_log.append(COMMANDS, "usr_1", b"{}", headers)

        async def quiet() -> bool:
            taken = await looking.snapshots(house, f"connection.v{FOLD_VERSION}")
            ends = [one.offset for one in await records(house, EVENTS) if b"the end" in one.value]
            return bool(taken and ends) and taken[0].checkpoint.end > ends[0]

        await until(quiet)
        # The house's own effects go on asking: what is looked at ends where the snapshot does.
        taken = await looking.snapshots(house, f"connection.v{FOLD_VERSION}")
        log, inputs = await records(house, EVENTS), await records(house, COMMANDS)
        at = taken[0].checkpoint
        return Seen(
            [one for one in log if one.offset < at.end],
            [one for one in inputs if one.offset < at.inputs[COMMANDS]],
            taken,
        )


def last(seen: Seen, kind: type) -> int:
    wanted = events.CONNECTION.types[kind].encode()
    return max(n for n, record in enumerate(seen.log) if dict(record.headers)["ce_type"] == wanted)


def with_body(seen: Seen, kind: type, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Seen:
    """One event says something else."""
    number = last(seen, kind)
    record = seen.log[number]
    changed = replace(record, value=orjson.dumps(change(orjson.loads(record.value))))
    return replace(seen, log=[*seen.log[:number], changed, *seen.log[number + 1 :]])


async def test_the_log_of_connections_says_what_the_rules_say(seen: Seen) -> None:
    assert len(seen.log) > 150
    assert len(seen.inputs) > 350
    assert seen.violations() == []


async def test_a_wrong_decision_on_a_connection_is_found(seen: Seen) -> None:
    later = with_body(seen, TokenRefreshed, lambda body: {**body, "refresh_at": "2030-01-01T00:00:00.000Z"})
    assert [found.rule for found in later.violations()] == ["log redecided"]
    number = last(seen, TokenRefreshed)
    void = replace(seen.log[number], headers=[(n, b"0" if n == "position" else v) for n, v in seen.log[number].headers])
    lost = replace(seen, log=[*seen.log[:number], void, *seen.log[number + 1 :]])
    assert "C8 undecided" in {found.rule for found in lost.violations()}
    (taken,) = seen.snapshots
    users = {key: document for key, document in taken.documents.items() if key[0] == "user"}
    wrong = {**taken.documents, next(iter(users)): replace(next(iter(users.values())), closed=None)}
    stale = replace(seen, snapshots=[replace(taken, documents=wrong)])
    assert {found.rule for found in stale.violations()} == {"log snapshot"}
