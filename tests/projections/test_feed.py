"""The feed keeps thirty days of the log's time, the same rows whoever folds it and in whatever batches."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from domain.mailbox_events import MailboxExpired, MailboxPurged
from gateways.http.resume import is_too_old
from gateways.local_servers import Servers
from projections import feed
from projections.replay import Rebuild
from schemas import events
from tests.support.mail_history import START, lives, mail_log, message, projecting
from tests.support.waiting import folded


async def test_rows_older_than_thirty_days_are_let_go(servers: Servers, database: str, topic_prefix: str) -> None:
    async with mail_log(servers, database, topic_prefix, partitions=2) as mail, projecting(mail):
        await mail.append(list(lives(20)))
        await mail.append([message("msg_elsewhere", "mbx_elsewhere")], partition=1)
        await folded(mail)
        assert len(await mail.rows("feed")) > 100
        mail.clock = START + timedelta(days=feed.KEPT_DAYS, seconds=60)
        first = await mail.append([message("msg_new", "mbx_1")])
        await folded(mail)
        left = await mail.pool.fetch("select at, position, partition from feed order by partition, position")
        assert [row["position"] for row in left if row["partition"] == 0][-1] == first
        oldest = START + timedelta(seconds=60)
        assert left[0]["at"] < oldest == left[1]["at"]
        assert [row["partition"] for row in left].count(1) == 1
        mail.clock = START + timedelta(days=feed.KEPT_DAYS + 1)
        last = await mail.append([message("msg_last", "mbx_1")])
        await folded(mail)
        rows = await mail.pool.fetch("select position, at from feed where partition = 0 order by position")
        assert [row["position"] for row in rows][1:] == [first, last]
        assert rows[0]["at"] < mail.clock - timedelta(days=feed.KEPT_DAYS)


async def test_who_resumes_from_before_a_row_that_was_let_go_is_told_so(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    """Also where the next row that is left is a young one."""
    async with mail_log(servers, database, topic_prefix) as mail, projecting(mail):
        now = datetime.now(UTC)
        positions = []
        for days in (31, 6, 0):
            mail.clock = now - timedelta(days=days)
            positions.append(await mail.append([message(f"msg_{days}", "mbx_1")]))
            await folded(mail)
        assert await is_too_old(mail.pool, feed.PROJECTION.topic, 0, positions[0])
        assert not await is_too_old(mail.pool, feed.PROJECTION.topic, 0, positions[0] + 1)


async def test_what_happened_to_a_purged_mailbox_stays_told_without_what_was_said(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail, projecting(mail):
        await mail.append([message("msg_1", "mbx_1"), MailboxExpired("mbx_1", "mbx_1", mail.clock)])
        await folded(mail)
        before = await feed.of_mailbox(mail.pool, "mbx_1", since=0, limit=10)
        await mail.append([MailboxPurged("mbx_1", "mbx_1")])
        await folded(mail)
        after = await feed.of_mailbox(mail.pool, "mbx_1", since=0, limit=10)
        assert after == [replace(entry, summary=None, envelope=None) for entry in before]
        assert [entry.type for entry in after] == ["message.received", "mailbox.expired"]


async def test_a_rebuild_lets_go_of_the_same_rows(servers: Servers, database: str, topic_prefix: str) -> None:
    """The live projector has folded event by event and day by day, the rebuild folds all of it in one batch."""
    async with mail_log(servers, database, topic_prefix) as mail:
        async with projecting(mail):
            for day in range(0, 70, 5):
                mail.clock = START + timedelta(days=day, minutes=day)
                await mail.append(list(lives(2, prefix=f"day{day}_")))
                await folded(mail)
        kept = await mail.rows("feed")
        assert 50 < len(kept) < 100
        outcome = await Rebuild(feed.PROJECTION, events.MAILBOX, mail.log, mail.database).run()
        assert (outcome.count, outcome.switched) == (0, True)
        assert await mail.rows("feed") == kept
