"""Every event is folded exactly once, whoever dies, hangs up or folds the same partition at the same time."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from gateways.command_line.failures import Failed
from gateways.command_line.skip_event import skip_event
from gateways.local_servers import Servers
from projections.projector import Projector
from schemas.envelope import Record
from tests.support.mail_history import TOPIC, MailLog, lives, mail_log, mailbox, message, projecting
from tests.support.waiting import TABLES, folded, until

MORTAL = Path(__file__).parents[1] / "support" / "projector_process.py"


async def as_folded_alone(mail: MailLog) -> dict[str, list[tuple[object, ...]]]:
    """The rows that one undisturbed projector makes of the same log, each event in a transaction of its own."""
    for table in TABLES:
        await mail.pool.execute(f"truncate read.{table}")
    await mail.pool.execute("update checkpoints set position = 0 where topic = $1", TOPIC)
    async with projecting(mail, group="alone"):
        await folded(mail)
    return {table: await mail.rows(table) for table in TABLES}


async def rows(mail: MailLog) -> dict[str, list[tuple[object, ...]]]:
    return {table: await mail.rows(table) for table in TABLES}


async def test_two_projectors_of_one_partition_fold_each_event_once(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        async with projecting(mail, group="one") as one, projecting(mail, group="two") as two:
            mail.with_void = True
            for part in range(8):
                await mail.append(list(lives(40, prefix=f"{part}_")))
            await folded(mail)
            assert one.stopped == two.stopped == {}
        together = await rows(mail)
        assert len(together["mailboxes"]) == 320
        assert together == await as_folded_alone(mail)


@pytest.mark.parametrize("moment", ["in_transaction", "after_commit"])
async def test_a_projector_killed_in_the_midst_leaves_nothing_half_done(
    servers: Servers, database: str, topic_prefix: str, moment: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await mail.append(list(lives(900)))
        for batch in (1, 2, 1):
            process = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, MORTAL, mail.kafka, mail.prefix, mail.database, moment, str(batch)],
                timeout=60,
            )
            assert process.returncode == -signal.SIGKILL
            reached = await mail.checkpoints()
            assert await mail.pool.fetchval("select count(*) from feed") == len(
                await mail.pool.fetch("select from feed where position < $1", reached.get(0, 0))
            )
            assert {(await mail.checkpoints(name)).get(0) for name in TABLES} == {reached.get(0)}
        async with projecting(mail, group="survivor"):
            await folded(mail)
        survived = await rows(mail)
        assert survived == await as_folded_alone(mail)


async def test_connections_that_postgres_ends_cost_time_and_no_rows(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await mail.append(list(lives(300)))
        ended = 0
        async with projecting(mail) as projector:
            while ended < 5:
                ended += await mail.pool.fetchval(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'"
                )
                await mail.append(list(lives(5, prefix=f"x{await mail.end()}_")))
            await folded(mail)
            assert projector.stopped == {}
        disturbed = await rows(mail)
        assert disturbed == await as_folded_alone(mail)


async def test_types_of_a_newer_writer_are_passed_over(servers: Servers, database: str, topic_prefix: str) -> None:
    @dataclass
    class MailboxPainted:
        mailbox: str
        owner: str
        colour: str

    async with mail_log(servers, database, topic_prefix) as mail, projecting(mail) as projector:
        await mail.append([mailbox("mbx_1")])
        await mail.append([MailboxPainted("mbx_1", "mbx_1", "green")], kind="mailbox.mailbox-painted.v1")
        await mail.append([message("msg_1", "mbx_1")])
        await folded(mail)
        assert projector.stopped == {}
        assert len(await mail.rows("messages")) == 1


class Watched(Projector):
    """A projector whose sentences about stopped partitions are kept."""

    sentences: list[str]

    def __init__(self, *parts: object, **more: object) -> None:
        super().__init__(*parts, **more)  # type: ignore[arg-type] # handed on as they came
        self.sentences = []
        self.on_stopped = self.sentences.append


async def test_an_event_that_cannot_be_applied_stops_its_partition_and_no_other(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix, partitions=2) as mail:
        await mail.append(list(lives(30)))
        poison = await mail.append([mailbox("mbx_twin", address="mbx_1")])
        await mail.append([message("msg_after", "mbx_2")])
        await mail.append(list(lives(30, prefix="other")), partition=1)
        async with projecting(mail, projector=Watched) as projector:
            await folded(mail, but={0: poison})

            async def stopped() -> bool:
                return projector.stopped == {0: poison}

            await until(stopped)
            assert len(projector.sentences) == 1
            assert f"{TOPIC}/0/{poison}" in projector.sentences[0]
            assert f"skip-event {TOPIC} 0 {poison}" in projector.sentences[0]
            await mail.append([message("msg_later", "mbx_other1")], partition=1)
            await folded(mail, but={0: poison})
            assert not await mail.pool.fetchval("select exists(select from messages where message = 'msg_after')")


async def test_an_operators_word_lets_a_stopped_partition_go_on_now_and_ever_after(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await mail.append(list(lives(30)))
        poison = await mail.append([mailbox("mbx_twin", address="mbx_1")])
        await mail.append([message("msg_after", "mbx_2")])
        async with projecting(mail) as projector:

            async def stopped() -> bool:
                return projector.stopped == {0: poison}

            await until(stopped)
            said = await skip_event(mail.log, TOPIC, 0, poison, "a twin that should not be")
            assert await skip_event(mail.log, TOPIC, 0, poison, "said again") == said
            await folded(mail)
            assert projector.stopped == {}
        first = await rows(mail)
        assert ("msg_after",) in [row[:1] for row in first["messages"]]
        assert first == await as_folded_alone(mail)


async def test_only_an_event_of_the_log_can_be_passed_over(servers: Servers, database: str, topic_prefix: str) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        mail.with_void = True
        await mail.append([mailbox("mbx_1")])
        for topic, position, why in (
            ("mail.raw", 0, "no topic of events"),
            (TOPIC, 9, "there is no event"),
            (TOPIC, 0, "about the log itself"),
            (TOPIC, 1, "void"),
        ):
            with pytest.raises(Failed, match=why):
                await skip_event(mail.log, topic, 0, position, "because")
        assert await mail.end() == 3


async def test_a_projector_waits_for_a_postgres_that_refuses_it(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await mail.append(list(lives(3)))
        await mail.pool.execute("alter table read.feed rename to hidden")
        async with projecting(mail) as projector:
            with pytest.raises(asyncpg.UndefinedTableError):
                await mail.pool.fetch("select from feed")
            await mail.append(list(lives(3, prefix="more")))
            await asyncio.sleep(0.5)
            assert await mail.checkpoints() in ({}, {0: 0})
            await mail.pool.execute("alter table read.hidden rename to feed")
            await folded(mail)
            assert projector.stopped == {}


class Counting(Projector):
    """A projector that counts what is delivered to it."""

    delivered = 0

    async def take(self, records: Sequence[Record]) -> None:
        self.delivered += len(records)
        await super().take(records)


async def test_a_consumer_that_begins_at_the_earliest_again_is_sent_on_at_once(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    """As aiokafka does where a leader that has fallen behind does not know the offset that is asked for."""
    async with mail_log(servers, database, topic_prefix) as mail, projecting(mail, projector=Counting) as projector:
        await mail.append(list(lives(2000)))
        await folded(mail)
        before = projector.delivered
        assert before > 14_000
        assert projector.subscription is not None
        assert projector.subscription.seek(TOPIC, 0, 0)
        await mail.append([mailbox("mbx_one_more")])
        await folded(mail)
        assert projector.delivered - before < 5000
