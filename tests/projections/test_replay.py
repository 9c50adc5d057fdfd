"""A read model is rebuilt from the log beside the live one; what differs is named and repaired, and nobody notices."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateways.command_line.replay import replay
from gateways.command_line.skip_event import skip_event
from gateways.local_servers import Servers
from gateways.stores.postgres import UNREACHABLE, pooled
from projections import messages
from projections.catalogue import of_topic
from projections.replay import CannotReplay, Outcome, Rebuild
from schemas import events
from tests.support.mail_history import TOPIC, MailLog, lives, mail_log, mailbox, message, projecting
from tests.support.waiting import folded, until

REPLAYING = Path(__file__).parents[1] / "support" / "replay_process.py"


def rebuild(mail: MailLog, name: str = "messages") -> Rebuild:
    (projection,) = [found for found in of_topic(TOPIC) if found.name == name]
    return Rebuild(projection, events.MAILBOX, mail.log, mail.database)


async def history(mail: MailLog, count: int = 60) -> None:
    """A log with void records, folded by a live projector that has ended since."""
    mail.with_void = True
    await mail.append(list(lives(count)))
    async with projecting(mail):
        await folded(mail)


async def leftovers(mail: MailLog) -> list[Any]:
    return await mail.pool.fetch("select nspname from pg_namespace where nspname like 'rebuild%'")


async def oid(mail: MailLog, table: str = "messages") -> int:
    return int(await mail.pool.fetchval("select to_regclass($1)::oid", f"read.{table}"))


async def test_a_rebuild_of_untouched_tables_finds_them_equal(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix, partitions=2) as mail:
        await mail.append(list(lives(40, prefix="one")), partition=1)
        await history(mail)
        for name in ("mailboxes", "messages", "timers", "feed"):
            rows, checkpoints, table = await mail.rows(name), await mail.checkpoints(name), await oid(mail, name)
            outcome = await rebuild(mail, name).run()
            assert outcome == Outcome(await mail.ends(), switched=True)
            assert rows
            assert await mail.rows(name) == rows
            assert await mail.checkpoints(name) == checkpoints
            assert await oid(mail, name) != table
        assert await leftovers(mail) == []


async def test_one_wrong_value_is_found_named_and_repaired(servers: Servers, database: str, topic_prefix: str) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        rows = await mail.rows("messages")
        await mail.pool.execute("update messages set is_read = false where message = 'msg_7a'")
        dry = await rebuild(mail).run(switch=False)
        assert list(map(str, dry.differences)) == ['messages message="msg_7a": is_read is false, by the log true']
        assert (dry.count, dry.switched) == (1, False)
        assert await mail.rows("messages") != rows
        assert await leftovers(mail) == []
        repaired = await rebuild(mail).run()
        assert (repaired.count, repaired.switched) == (1, True)
        assert await mail.rows("messages") == rows
        assert (await rebuild(mail).run()).count == 0


async def test_missing_and_extra_rows_are_named(servers: Servers, database: str, topic_prefix: str) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        await mail.pool.execute("delete from messages where message = 'msg_3a'")
        await mail.pool.execute("update messages set message = 'msg_ghost', content = repeat('x', 5000) where number = 1 "
                                "and mailbox = 'mbx_4'")  # fmt: skip
        outcome = await rebuild(mail).run()
        assert list(map(str, outcome.differences)) == [
            'messages message="msg_3a": is missing',
            'messages message="msg_4a": is missing',
            'messages message="msg_ghost": is there, but not by the log',
        ]


async def test_at_most_twenty_rows_are_named_and_all_are_counted(
    servers: Servers, database: str, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        await mail.pool.execute("update messages set content = repeat('secret', 100)")
        count = await mail.pool.fetchval("select count(*) from messages")
        assert await replay([rebuild(mail)], dry_run=False, output="table") == 1
        said = capsys.readouterr().out.splitlines()
        assert len([line for line in said if line.startswith("messages message=")]) == 20
        assert f"… and {count - 20} more" in said
        assert "secret" * 10 not in "".join(said)
        assert said[-1].endswith(f"{count} rows differed; the rebuilt tables are in place.")
        assert await replay([rebuild(mail)], dry_run=False, output="table") == 0
        assert capsys.readouterr().out.rstrip().endswith("equal to the live tables; the rebuilt tables are in place.")


@pytest.mark.parametrize(
    "lost",
    [
        "drop table read.messages",
        "truncate read.messages; update checkpoints set position = 0 where name = 'messages'",
        "truncate read.messages; delete from checkpoints where name = 'messages'",
        "drop table read.messages; delete from checkpoints where name = 'messages'",
    ],
)
async def test_a_read_model_that_is_gone_is_made_from_nothing(
    servers: Servers, database: str, topic_prefix: str, lost: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        rows = await mail.rows("messages")
        await mail.pool.execute(lost)
        outcome = await rebuild(mail).run()
        assert (outcome.from_nothing, outcome.count, outcome.switched) == (True, 0, True)
        assert await mail.rows("messages") == rows
        assert await mail.checkpoints() == await mail.ends()
        async with projecting(mail):
            await mail.append([message("msg_new", "mbx_1")])
            await folded(mail)
        assert len(await mail.rows("messages")) == len(rows) + 1


async def test_rows_that_were_emptied_behind_the_projectors_back_are_missing_rows(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        rows = await mail.rows("messages")
        await mail.pool.execute("truncate read.messages")
        assert (await rebuild(mail).run()).count == len(rows)
        assert await mail.rows("messages") == rows


async def test_a_projection_that_is_behind_is_rebuilt_to_where_it_is(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        rows, checkpoints = await mail.rows("messages"), await mail.checkpoints()
        await mail.append(list(lives(20, prefix="unseen")))
        outcome = await rebuild(mail).run()
        assert (outcome.count, outcome.positions) == (0, checkpoints)
        assert (await mail.rows("messages"), await mail.checkpoints()) == (rows, checkpoints)


async def test_what_was_granted_and_indexed_stays_so(servers: Servers, database: str, topic_prefix: str) -> None:
    described = (
        "select array(select indexdef from pg_indexes where schemaname = 'read' and tablename = 'messages' order by 1), "
        "array(select privilege_type from information_schema.role_table_grants where table_schema = 'read' "
        "and table_name = 'messages' and grantee = 'PUBLIC')"
    )
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail, 3)
        await mail.pool.execute("grant select on read.messages to public")
        before = await mail.pool.fetchrow(described)
        await rebuild(mail).run()
        assert await mail.pool.fetchrow(described) == before
        assert list(before[1]) == ["SELECT"]


async def test_live_readers_and_a_live_projector_see_no_error_and_no_empty_table(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    """Both keep the statements they prepared on the tables that are dropped under them."""
    async with (
        mail_log(servers, database, topic_prefix) as mail,
        projecting(mail) as projector,
        pooled(mail.database) as readers,
    ):
        await mail.append(list(lives(60)))
        await folded(mail)
        least = len(await mail.rows("messages"))
        ending = asyncio.Event()
        longest = 0.0

        async def read(in_transaction: bool) -> int:
            nonlocal longest
            reads = 0
            while not ending.is_set():
                began = asyncio.get_running_loop().time()
                async with readers.acquire() as connection:
                    if in_transaction:
                        async with connection.transaction():
                            found = await connection.fetchval("select count(*) from messages")
                    else:
                        found = await connection.fetchval("select count(*) from messages where is_read or not is_read")
                        assert await messages.whole(readers, "mbx_7", "msg_7a")
                assert found >= least
                longest = max(longest, asyncio.get_running_loop().time() - began)
                reads += 1
                await asyncio.sleep(0)
            return reads

        async def write() -> None:
            number = 0
            while not ending.is_set():
                number += 1
                await mail.append([message(f"msg_live{number}", "mbx_7", number=number)])

        work = [asyncio.create_task(read(False)), asyncio.create_task(read(True)), asyncio.create_task(write())]
        other = mail_other(mail)
        try:
            for _ in range(6):
                assert (await Rebuild(messages.PROJECTION, events.MAILBOX, other, mail.database).run()).count == 0
        finally:
            ending.set()
            plain, transacted, _ = await asyncio.gather(*work)
            await other.close()
        await folded(mail)
        assert projector.stopped == {}
        assert plain > 50
        assert transacted > 50
        assert longest < 3
        assert (await rebuild(mail).run()).count == 0


def mail_other(mail: MailLog) -> Any:
    """A second log, as another process has it: a reader of a partition serves one at a time."""
    return type(mail.log)(mail.kafka, prefix=mail.prefix)


async def test_a_table_of_another_shape_is_exchanged_under_live_readers(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    """A column's type changes: outside of a transaction asyncpg prepares anew by itself, the projector folds again."""
    async with (
        mail_log(servers, database, topic_prefix) as mail,
        pooled(mail.database, size=1) as reader,
        projecting(mail) as projector,
    ):
        await mail.append(list(lives(10)))
        await folded(mail)
        await mail.pool.execute("alter table messages alter size type numeric")
        before = await reader.fetchval("select size from messages where message = 'msg_1a'")
        outcome = await rebuild(mail).run()
        assert [str(found) for found in outcome.differences] == [
            'messages columns="of another shape": size is "numeric", by the log "bigint"'
        ]
        assert await reader.fetchval("select size from messages where message = 'msg_1a'") == before
        await mail.append([message("msg_new", "mbx_1")])
        await folded(mail)
        assert projector.stopped == {}


async def test_a_reader_that_does_not_let_go_keeps_nobody_else_waiting(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        async with mail.pool.acquire() as slow:
            reading = slow.transaction()
            await reading.start()
            await slow.fetch("select from messages")
            running = asyncio.create_task(rebuild(mail).run())
            longest = 0.0
            for _ in range(40):
                began = asyncio.get_running_loop().time()
                await mail.pool.fetch("select from messages")
                longest = max(longest, asyncio.get_running_loop().time() - began)
                await asyncio.sleep(0.05)
            assert not running.done()
            assert longest < 1.5
            await reading.rollback()
        assert (await running).switched


@pytest.mark.parametrize("moment", ["first_batch", "comparing", "exchanging", "exchanged"])
async def test_a_rebuild_killed_at_any_point_leaves_the_live_tables_as_they_were(
    servers: Servers, database: str, topic_prefix: str, moment: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)
        rows, table = await mail.rows("messages"), await oid(mail)
        process = await asyncio.to_thread(
            subprocess.run, [sys.executable, REPLAYING, mail.kafka, mail.prefix, mail.database, moment], timeout=60
        )
        assert process.returncode == -signal.SIGKILL
        assert await leftovers(mail)
        assert (await mail.rows("messages"), await oid(mail)) == (rows, table)

        async def free() -> bool:
            return not await mail.pool.fetchval("select exists(select from pg_locks where locktype = 'advisory')")

        await until(free)
        assert (await rebuild(mail).run()).count == 0
        assert await leftovers(mail) == []


async def test_two_rebuilds_of_one_projection_do_not_meet(servers: Servers, database: str, topic_prefix: str) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail, 3)
        async with rebuild(mail)._connected():
            with pytest.raises(CannotReplay, match="Another process is rebuilding messages"):
                await rebuild(mail).run()
            assert (await rebuild(mail, "timers").run()).switched


async def test_an_event_that_cannot_be_applied_is_named_and_changes_nothing(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await mail.append(list(lives(30)))
        poison = await mail.append([mailbox("mbx_twin", address="mbx_1")])
        await mail.append([mailbox("mbx_last")])
        with pytest.raises(CannotReplay, match=rf"{TOPIC}/0/{poison} \(UniqueViolationError\)"):
            await rebuild(mail, "mailboxes").run()
        assert await mail.rows("mailboxes") == []
        await skip_event(mail.log, TOPIC, 0, poison, "a twin")
        await rebuild(mail, "mailboxes").run()
        assert {row[0] for row in await mail.rows("mailboxes")} >= {"mbx_29", "mbx_last"}
        assert "mbx_twin" not in {row[0] for row in await mail.rows("mailboxes")}


async def test_an_event_that_was_applied_and_is_to_be_passed_over_is_gone_after_a_rebuild(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        unwanted = await mail.append([message("msg_unwanted", "mbx_1")])
        await history(mail, 5)
        await skip_event(mail.log, TOPIC, 0, unwanted, "it should not be seen")
        async with projecting(mail):
            await folded(mail)
        outcome = await rebuild(mail).run()
        assert list(map(str, outcome.differences)) == ['messages message="msg_unwanted": is there, but not by the log']
        assert (await rebuild(mail).run()).count == 0


async def test_a_log_that_is_shorter_than_what_was_folded_is_not_rebuilt_from(
    servers: Servers, database: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.replay.PATIENCE_SECONDS", 0.0)
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail, 3)
        rows = await mail.rows("messages")
        await mail.pool.execute("update checkpoints set position = position + 1")
        with pytest.raises(CannotReplay, match="records are missing"):
            await rebuild(mail).run()
        assert await mail.rows("messages") == rows


async def test_a_connection_that_is_cut_is_a_failure_after_which_the_next_run_succeeds(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await history(mail)

        async def cut() -> None:
            while not await mail.pool.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where datname = current_database() and application_name = 'postledger replay'"
            ):
                await asyncio.sleep(0.001)

        cutting = asyncio.create_task(cut())
        with pytest.raises((asyncpg.PostgresError, *UNREACHABLE)):
            await rebuild(mail).run()
        await cutting
        assert (await rebuild(mail).run()).count == 0
