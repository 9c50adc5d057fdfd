"""The feed keeps thirty days of the log's time, the same rows whoever folds it and in whatever batches."""

from datetime import timedelta

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
        assert left[0]["at"] == oldest
        assert [row["partition"] for row in left].count(1) == 1
        mail.clock = START + timedelta(days=feed.KEPT_DAYS + 1)
        last = await mail.append([message("msg_last", "mbx_1")])
        await folded(mail)
        rows = await mail.pool.fetch("select position from feed where partition = 0 order by position")
        assert [row["position"] for row in rows] == [first, last]


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
