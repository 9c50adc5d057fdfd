"""How fast a read model is made anew from the log."""

import asyncio
import os
import random
import string
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateways.local_servers import Servers
from projections.messages import PROJECTION
from projections.replay import Rebuild
from schemas import events
from tests.benchmarks.process_tree import ProcessTree
from tests.benchmarks.report import Report
from tests.support.mail_history import MailLog, mail_log, mailbox, message

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
ROUNDS = 2
MESSAGES_EACH = 10


def arrivals(count: int, body: int) -> Iterator[Any]:
    """So many events: inboxes, and ten messages in each; bodies of base64, which is what sealing leaves of them."""
    chosen = random.Random(7)
    letters = string.ascii_letters + string.digits + "+/"
    for number in range(count // (MESSAGES_EACH + 1)):
        yield mailbox(f"mbx_{number}")
        for place in range(MESSAGES_EACH):
            text = "".join(chosen.choices(letters, k=body))
            yield message(f"msg_{number}_{place}", f"mbx_{number}", number=place + 1, body=text)


def _batches(happened: list[Any], size: int) -> Iterator[list[Any]]:
    """What fits one record batch at a time."""
    for start in range(0, len(happened), size):
        yield happened[start : start + size]


async def copied(mail: MailLog, rows: list[Any]) -> float:
    """The floor: seconds to COPY the same rows into a table of the same shape, with the same indexes."""
    async with mail.pool.acquire() as connection:
        await connection.execute("drop schema if exists floor cascade; create schema floor; set search_path to floor")
        for statement in PROJECTION.statements:
            await connection.execute(statement)
        began = time.perf_counter()
        async with connection.transaction():
            await connection.copy_records_to_table("messages", schema_name="floor", records=rows)
        seconds = time.perf_counter() - began
        await connection.execute("reset search_path; drop schema floor cascade")
    return seconds


@pytest.mark.parametrize(("kib", "count"), [(1, 22_000), (10, 6_600)], ids=["1k", "10k"])
async def test_messages_are_rebuilt(kib: int, count: int, servers: Servers, database: str, topic_prefix: str) -> None:
    """From nothing, as after a lost table; then again beside the live table, compared with it row by row."""
    report = Report(f"rebuild of `messages`, bodies of {kib} KiB")
    everything = ProcessTree(os.getpid())
    async with mail_log(servers, database, topic_prefix) as mail:
        for happened in _batches(list(arrivals(count, kib * 1024)), 250 // kib):
            await mail.append(happened)
        rebuild = Rebuild(PROJECTION, events.MAILBOX, mail.log, database)
        for turn in range(ROUNDS):
            for side in ("from nothing", "compared", "floor"):
                if side == "from nothing":
                    await mail.pool.execute("delete from checkpoints where name = 'messages'; truncate read.messages")
                    await asyncio.sleep(1)
                rows = await mail.pool.fetch("select * from read.messages") if side == "floor" else []
                cpu, began = everything.cpu_seconds(), time.perf_counter()
                if side == "floor":
                    seconds = await copied(mail, [tuple(row) for row in rows])
                else:
                    outcome = await rebuild.run()
                    seconds = time.perf_counter() - began
                    assert outcome.count == 0
                    assert outcome.switched
                suffix = "_compared" if side == "compared" else ""
                cpu = everything.cpu_seconds() - cpu
                report.add(
                    "floor" if side == "floor" else "postledger",
                    round=turn,
                    how="COPY of the same rows" if side == "floor" else side,
                    events=count,
                    **{
                        f"events_per_s{suffix}": round(count / seconds),
                        f"cpu_us_per_event{suffix}": round(cpu / count * 1e6, 1),
                    },
                )
    report.compare("events_per_s")
