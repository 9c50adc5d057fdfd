"""Timers: what is due is asked for by one of many workers, again when nothing came of it, and never decided too early."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from typing import Any

import pytest

from domain.mailbox_commands import ExpireMailbox
from domain.mailbox_events import MailboxExpired
from gateways.stores.work_positions import Destruction, TimerClaims
from handlers.timers import Timers
from schemas.envelope import first
from tests.faults import log_scan
from tests.faults.installation import COMMANDS, EVENTS, FLEETING, Installation, installed
from tests.faults.looking import violations

COUNT = 450


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path) -> AsyncIterator[Installation]:
    async with installed(servers, database, topic_prefix, tmp_path) as house:
        yield house


async def set_timers(house: Installation, due: str, count: int = COUNT, kind: str = "expire") -> None:
    await house.pool.execute(
        "insert into timers (timer, kind, due, subject, key) select $2 || '/mbx_' || n, $2, now() + $3::text::interval, "
        "'mbx_' || n, 'acc_1' from generate_series(1, $1) n",
        count,
        kind,
        due,
    )


async def run_workers(house: Installation, stack: AsyncExitStack, count: int = 3) -> None:
    for _ in range(count):
        timers = Timers(TimerClaims(house.pool), house.command_log, Destruction(house.keyring, house.blobs))
        task = asyncio.create_task(timers.run())
        stack.callback(task.cancel)


async def asked(house: Installation) -> Counter[str]:
    return Counter(first(record.headers)["ce_id"] for record in await house.records(COMMANDS))


async def test_of_several_workers_each_due_timer_is_asked_for_by_one(house):
    await set_timers(house, "-1 second")
    await house.pool.execute("update timers set due = now() + interval '1 hour' where timer = 'expire/mbx_1'")
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        await run_workers(house, stack)
        while sum((found := await asked(house)).values()) < COUNT - 1:
            await asyncio.sleep(0.1)
    assert set(found.values()) == {1}
    assert not any(name.startswith("expire/mbx_1@") for name in found), "it was not due yet"


async def test_what_came_to_nothing_is_asked_for_again_under_the_same_id_once_its_claim_has_lapsed(house):
    await set_timers(house, "-1 second", 3)
    claims = TimerClaims(house.pool)
    first_claimed = await claims.claim(10)
    assert len(first_claimed) == 3
    assert await claims.claim(10) == []
    await house.pool.execute("update timer_claims set claimed_until = now()")
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        await run_workers(house, stack, 2)
        while len(found := await asked(house)) < 3:
            await asyncio.sleep(0.05)
    assert set(found) == {f"{timer.timer}@{timer.due.timestamp():.3f}" for timer in first_claimed}


async def test_early_and_repeated_commands_change_nothing(house):
    work, project = await asyncio.gather(house.start("work"), house.start("project"))
    fleeting, lasting = await house.open_mailbox("acc_1", FLEETING), await house.open_mailbox("acc_2")
    async with asyncio.timeout(20):
        while not await house.pool.fetchval("select ended from mailboxes where mailbox = $1", fleeting.mailbox):
            await asyncio.sleep(0.05)
    due = await house.pool.fetchval("select expires_at from mailboxes where mailbox = $1", lasting.mailbox)
    for _ in range(2):
        await house.ask(ExpireMailbox(lasting.mailbox, due), "acc_2", operation="early")
        await house.ask(ExpireMailbox(fleeting.mailbox, due), "acc_1", operation="repeated")
    await house.quiet()
    await asyncio.gather(work.stop(), project.stop())
    facts = log_scan.facts(await house.records(EVENTS))
    expired = [fact.event.mailbox for fact in facts if isinstance(fact.event, MailboxExpired)]
    assert expired == [fleeting.mailbox]
    assert await violations(house) == []


async def purged(house: Installation) -> tuple[Any, str]:
    """The keyring's row of a mailbox, as a backup has it, and the mailbox, which has been purged since."""
    work, project = await asyncio.gather(house.start("work"), house.start("project"))
    box = await house.open_mailbox("acc_1", FLEETING)
    backup = await house.pool.fetchrow("select * from keyring where subject = $1", box.mailbox)
    async with asyncio.timeout(20):
        while not await house.pool.fetchval("select ended from mailboxes where mailbox = $1", box.mailbox):
            await asyncio.sleep(0.05)
        await house.pool.execute("update timers set due = now() where kind = 'purge'")
        while await house.pool.fetchval("select ended from mailboxes where mailbox = $1", box.mailbox) != "purged":
            await asyncio.sleep(0.05)
    await asyncio.gather(work.stop(), project.stop())
    return backup, box.mailbox


async def restored(house: Installation, backup: Any) -> None:
    await house.pool.copy_records_to_table("keyring", schema_name="kept", records=[tuple(backup)])


async def has_key(house: Installation, mailbox: str) -> bool:
    return bool(await house.pool.fetchval("select exists (select from keyring where subject = $1)", mailbox))


async def gone(house: Installation, mailbox: str) -> None:
    async with asyncio.timeout(20):
        while await has_key(house, mailbox):
            await asyncio.sleep(0.05)


async def test_a_key_that_a_restored_backup_brings_back_is_destroyed_again_at_the_start(house):
    backup, mailbox = await purged(house)
    lasting = await house.open_mailbox("acc_2")
    assert not await has_key(house, mailbox), "it was never destroyed"
    await restored(house, backup)
    await house.blobs.put(f"{mailbox}/msg_1.raw", BytesIO(b"mail"), b"0" * 32, b"")
    work = await house.start("work")
    await gone(house, mailbox)
    assert house.blobs.names() == []
    assert await work.stop() == 0
    assert await has_key(house, lasting.mailbox)


async def test_what_a_restored_database_learns_later_was_purged_is_destroyed_then(house, monkeypatch):
    monkeypatch.setattr("handlers.timers.AGAIN_SECONDS", 0.1)
    backup, mailbox = await purged(house)
    async with AsyncExitStack() as stack:
        await run_workers(house, stack, 1)
        await house.pool.execute("update mailboxes set ended = 'expired' where mailbox = $1", mailbox)
        await restored(house, backup)
        await house.pool.execute("update mailboxes set ended = 'purged' where mailbox = $1", mailbox)
        await gone(house, mailbox)
