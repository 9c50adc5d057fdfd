"""The running installation, as a command of the operator reaches it: questions to the tables, decisions through the log.

A command changes nothing by itself. It appends a command like every gateway, waits for the decision, and says what was
decided. Where no worker runs it says so instead of waiting for ever; the command stays in the log and is decided later.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from domain.account import AccountCommand
from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from gateways.command_line.failures import TIMED_OUT, Failed
from gateways.command_line.output import advise
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Asked, Decisions, Unsettled
from gateways.log.tail import Tail
from gateways.stores.folded import FoldedPositions
from gateways.stores.postgres import UNREACHABLE, Pool, open_pool
from schemas import commands, events
from schemas.envelope import Record
from schemas.topics import ACCOUNT_COMMANDS, ACCOUNT_EVENTS

#: Seconds a server has to answer a person who sits and waits.
POSTGRES_SECONDS: Final = 2.0
KAFKA_SECONDS: Final = 6.0
#: Seconds for a decision that did not come at once: a worker may just be taking its partitions over.
DECIDED_SECONDS: Final = 12.0
FOLDED_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Installation:
    """Where an installation's servers are, and what wraps its data keys: the keyset file, and the setting `kms`.

    `retry_scale` is the factor on every wait of our own.
    """

    kafka: str
    database_url: str
    topic_prefix: str = ""
    keyset: Path = Path("keyset.json")
    kms: str = "local"
    retry_scale: float = 1.0


@asynccontextmanager
async def tables_of(installation: Installation) -> AsyncIterator[Pool]:
    """The tables, for questions. Raises Failed where Postgres does not answer."""
    url = urlsplit(installation.database_url)
    try:
        pool = await open_pool(installation.database_url, size=2, wait_seconds=POSTGRES_SECONDS)
    except UNREACHABLE as error:
        raise Failed(
            f"Postgres at {url.hostname}:{url.port or 5432} does not answer: is it running, and is "
            f"POSTLEDGER_DATABASE_URL right?"
        ) from error
    try:
        yield pool
    finally:
        pool.terminate()


class Desk:
    """Where an operator's decisions about plans, accounts and keys are asked for."""

    def __init__(self, pool: Pool, log: CommandLog, tail: Tail, folded: FoldedPositions) -> None:
        self.pool = pool
        self._tail = tail
        self._folded = folded
        self._decisions = Decisions(log, tail, folded, commands=commands.ACCOUNT, events=events.ACCOUNT)
        self._heard: dict[str, Record] = {}
        tail.listen(lambda record, cause: self._heard.update({cause: record}))

    async def ask(self, command: AccountCommand, *, key: str, subject: str) -> Any:
        """The event this command led to. Raises Failed where nobody decides, NotPromised and OutcomeUnknown."""
        asked = Asked(ACCOUNT_COMMANDS.name, key, subject, command, "accounts")
        try:
            event = (await self._decisions.ask(asked)).event
        except Unsettled as unsettled:
            advise("Waiting for a worker to decide …")
            event = await self._decided_late(unsettled.command_id)
        match event:
            case CommandLapsed():
                raise Failed("The log took this too late, so nothing was changed: try again.", code=TIMED_OUT)
            case CommandFailed() | CommandUnreadable():
                raise Failed(f"The workers could not decide this ({event.cause}); dead.letters has it whole.")
        return event

    async def _decided_late(self, command_id: str) -> Any:
        try:
            async with asyncio.timeout(DECIDED_SECONDS):
                record = self._heard.get(command_id) or await self._tail.decision_on(command_id)
        except TimeoutError as error:
            raise Failed(
                "No worker has decided this yet. It is in the log and will be decided as soon as one runs: start "
                "`python main.py up`, or the roles `work` and `project`.",
                code=TIMED_OUT,
            ) from error
        try:
            await self._folded.reached(
                "accounts", record.topic, record.partition, record.offset + 1, seconds=FOLDED_SECONDS
            )
        except TimeoutError:
            advise("It is decided, but the tables do not show it yet: is the role `project` running?")
        return events.ACCOUNT.decode(record.header("ce_type"), record.value)


@asynccontextmanager
async def desk_of(installation: Installation) -> AsyncIterator[Desk]:
    """A desk, for as long as the block runs. Raises Failed where a server does not answer."""
    async with tables_of(installation) as pool, log_of(installation, pool, ACCOUNT_EVENTS.name) as (log, tail, folded):
        yield Desk(pool, log, tail, folded)


@asynccontextmanager
async def log_of(
    installation: Installation, pool: Pool, topic: str
) -> AsyncIterator[tuple[CommandLog, Tail, FoldedPositions]]:
    """A way to ask, what follows in this topic, and how far the tables are. Raises Failed where Kafka does not answer."""
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(logging.disable, logging.NOTSET)
        logging.disable(logging.CRITICAL)  # a command fails in one sentence of its own
        log = CommandLog(installation.kafka, prefix=installation.topic_prefix)
        stack.push_async_callback(log.close)
        tail = Tail(installation.kafka, [topic], prefix=installation.topic_prefix)
        stack.push_async_callback(tail.stop)
        folded = FoldedPositions(installation.database_url, pool)
        stack.push_async_callback(folded.stop)
        await folded.start()
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                await tail.start()
        except TimeoutError as error:
            raise Failed(
                f"Kafka at {installation.kafka} does not answer, or has no topics of Postledger's: is it running, is "
                f"POSTLEDGER_KAFKA right, and was `python main.py provision` run?"
            ) from error
        yield log, tail, folded
