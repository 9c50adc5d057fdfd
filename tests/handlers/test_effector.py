"""The effector's loop: in order for each key, many keys at once, and a position that never passes what is unfinished."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.mailbox_events import MailboxPurged, MessageRead
from gateways.log.subscriptions import Subscriptions
from gateways.stores.postgres import pooled
from gateways.stores.work_positions import EffectPositions
from handlers.effector import Effect, Effector, same_work
from projections.migrate import migrate
from schemas import events, topics
from schemas.envelope import Record, Source, event_headers
from schemas.vocabulary import encode
from tests.support.mail_history import lives, mail_log

TOPIC = topics.MAILBOX_EVENTS.name


@pytest.fixture
async def positions(database) -> AsyncIterator[EffectPositions]:
    await migrate(database)
    async with pooled(database, size=2) as pool:
        yield EffectPositions(pool)


def record(offset: int, key: str, event: Any = None, *, position: int | None = None) -> Record:
    event = event or MessageRead(f"msg_{offset}", "mbx_1", key)
    headers = event_headers(
        event_id=f"evt_{offset}", kind=events.MAILBOX.type_of(event), subject="mbx_1", at=datetime.now(UTC),
        position=offset if position is None else position, cause={}, source=Source(TOPIC, 0, offset), sequence=1,
    )  # fmt: skip
    return Record(TOPIC, 0, offset, 0, key, encode(event), headers)


@asynccontextmanager
async def running(
    positions: EffectPositions,
    act: Callable[[Any, Record], Awaitable[None]],
    *,
    concurrency: int = 8,
    effect: Effect | None = None,
) -> AsyncIterator[Effector]:
    loop = Effector(effect or Effect("tried", TOPIC, events.MAILBOX, MessageRead, act, concurrency), positions)
    await loop.assigned([(TOPIC, 0)])
    async with asyncio.timeout(20):
        while loop._shares[TOPIC, 0].expected is None:
            await asyncio.sleep(0.01)
        yield loop
    await loop.stop()


async def reaches(positions: EffectPositions, position: int) -> None:
    async with asyncio.timeout(10):
        while await positions.position("tried", TOPIC, 0) != position:
            await asyncio.sleep(0.02)


async def test_one_key_in_order_and_a_slow_key_holds_up_no_other(positions):
    done: list[int] = []
    slow = asyncio.Event()

    async def act(event: MessageRead, found: Record) -> None:
        if found.key == "slow":
            await slow.wait()
        done.append(found.offset)

    async with running(positions, act) as loop:
        await loop.take([record(0, "slow"), record(1, "a"), record(2, "slow"), record(3, "a"), record(4, "b")])
        while len(done) < 3:
            await asyncio.sleep(0.01)
        assert sorted(done) == [1, 3, 4]
        assert done.index(1) < done.index(3)
        slow.set()
        while len(done) < 5:
            await asyncio.sleep(0.01)
        assert done[3:] == [0, 2]
        await reaches(positions, 5)


async def test_the_position_is_the_lowest_unfinished_record_and_after_a_crash_that_is_asked_for_again(positions):
    done: list[int] = []
    never = asyncio.Event()

    async def stuck_at_two(event: MessageRead, found: Record) -> None:
        if found.offset == 2:
            await never.wait()
        done.append(found.offset)

    taken = [record(0, "a"), record(1, "b"), record(2, "c"), record(3, "d"), record(4, "e")]
    async with running(positions, stuck_at_two) as loop:
        await loop.take(taken)
        await reaches(positions, 2)
        assert sorted(done) == [0, 1, 3, 4]

    async def act(event: MessageRead, found: Record) -> None:
        done.append(found.offset)

    done.clear()
    async with running(positions, act) as loop:
        await loop.take(taken)
        await reaches(positions, 5)
    assert done == [2, 3, 4]


async def test_an_effect_that_fails_is_tried_again_and_takes_no_room_from_others_while_it_waits(positions):
    tries: dict[int, int] = {}

    async def act(event: MessageRead, found: Record) -> None:
        tries[found.offset] = tries.get(found.offset, 0) + 1
        if found.offset < 3 and tries[found.offset] < 4:
            raise ConnectionError("not now")

    async with running(positions, act, concurrency=1) as loop:
        await loop.take([record(offset, f"key {offset}") for offset in range(6)])
        while len(tries) < 6:
            await asyncio.sleep(0.01)
        assert max(tries[offset] for offset in range(3)) < 4, "the others waited for what failed"
        await reaches(positions, 6)
    assert tries == {0: 4, 1: 4, 2: 4, 3: 1, 4: 1, 5: 1}


async def test_an_event_that_cannot_be_read_holds_up_its_own_key_only(positions):
    done: list[int] = []

    async def act(event: MessageRead, found: Record) -> None:
        done.append(found.offset)

    broken = record(0, "a")
    broken = Record(TOPIC, 0, 0, 0, "a", b"{", broken.headers)
    async with running(positions, act, concurrency=1) as loop:
        await loop.take([broken, record(1, "a"), record(2, "b")])
        while not done:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert done == [2]
        assert await positions.position("tried", TOPIC, 0) == 0


async def test_void_records_and_other_events_are_passed_over_and_repeats_are_not_acted_on(positions):
    done: list[int] = []

    async def act(event: MessageRead, found: Record) -> None:
        done.append(found.offset)

    async with running(positions, act) as loop:
        first_batch = [record(0, "a", position=7), record(1, "a", MailboxPurged("mbx_1", "a")), record(2, "a")]
        await loop.take(first_batch)
        await loop.take([*first_batch, record(3, "a")])
        await reaches(positions, 4)
    assert done == [2, 3]


async def test_what_comes_after_a_gap_waits_until_the_gap_was_read(positions):
    sought: list[int] = []
    done: list[int] = []

    class Seeker:
        def seek(self, topic: str, partition: int, offset: int) -> bool:
            sought.append(offset)
            return True

    async def act(event: MessageRead, found: Record) -> None:
        done.append(found.offset)

    async with running(positions, act) as loop:
        loop.subscription = Seeker()
        await loop.take([record(0, "a"), record(2, "a"), record(3, "b")])
        await loop.take([record(offset, "a") for offset in (1, 2, 3)])
        await reaches(positions, 4)
    assert set(sought) == {1}
    assert done == [0, 1, 2, 3]


async def test_a_partition_with_more_unfinished_work_than_there_is_room_for_is_paused_and_goes_on(
    servers, database, topic_prefix
):
    """The consumer is a real one: what it had fetched when it was paused is fetched again."""
    go, done = asyncio.Event(), []

    async def act(event: MessageRead, found: Record) -> None:
        await go.wait()
        done.append(found.offset)

    async with mail_log(servers, database, topic_prefix) as mail:
        positions = EffectPositions(mail.pool)
        loop = Effector(Effect("tried", TOPIC, events.MAILBOX, MessageRead, act, unfinished=20), positions)
        subscriptions = Subscriptions(mail.kafka, prefix=mail.prefix)
        loop.subscription = subscriptions.subscribe([TOPIC], group="tried", consumes=loop, max_records=30)
        await mail.append([MessageRead(f"msg_{number}", "mbx_1", f"acc_{number}") for number in range(400)])
        await subscriptions.start()
        try:
            await until_paused(loop)
            # What came before its position was known does not count: it comes once more.
            [share] = loop._shares.values()
            assert share.expected < 200
            go.set()
            await reaches(positions, await mail.end())
            assert sorted(done) == sorted(set(done))
            assert len(done) == 400
        finally:
            await loop.stop()
            await subscriptions.stop()


async def until_paused(loop: Effector) -> None:
    async with asyncio.timeout(20):
        while not any(share.paused for share in loop._shares.values()):
            await asyncio.sleep(0.01)


async def begins(begun: list[int], count: int) -> None:
    async with asyncio.timeout(10):
        while len(begun) < count:
            await asyncio.sleep(0.01)


async def test_of_one_key_so_many_are_worked_off_at_once_and_the_rest_is_surplus(positions):
    begun: list[int] = []
    surplus: list[int] = []
    go = asyncio.Event()

    async def act(event: MessageRead, found: Record) -> None:
        begun.append(found.offset)
        await go.wait()

    async def too_many(event: MessageRead, found: Record) -> None:
        surplus.append(found.offset)

    effect = Effect("tried", TOPIC, events.MAILBOX, MessageRead, act, 8, width=2, waiting=3, surplus=too_many)
    async with running(positions, act, effect=effect) as loop:
        await loop.take([record(0, "a"), record(1, "a")])
        await begins(begun, 2)
        await loop.take([record(offset, "a") for offset in range(2, 8)])
        await loop.take([record(8, "b")])
        while len(surplus) < 3 or len(begun) < 3:
            await asyncio.sleep(0.01)
        assert (sorted(begun), sorted(surplus)) == ([0, 1, 8], [5, 6, 7])
        go.set()
        await reaches(positions, 9)
    assert sorted(begun) == [0, 1, 2, 3, 4, 8]


async def test_of_work_of_a_distinct_type_only_the_first_on_its_subject_waits_and_of_others_each(positions):
    begun: list[int] = []
    go = asyncio.Event()

    async def act(event: object, found: Record) -> None:
        begun.append(found.offset)
        await go.wait()

    both = (MessageRead, MailboxPurged)
    effect = Effect("tried", TOPIC, events.MAILBOX, both, act, distinct=(MessageRead,))
    async with running(positions, act, effect=effect) as loop:
        await loop.take([record(0, "a")])
        await begins(begun, 1)
        purged = [record(offset, "a", MailboxPurged("mbx_1", "a")) for offset in (6, 7)]
        await loop.take([*[record(offset, "a") for offset in range(1, 6)], *purged])
        go.set()
        await reaches(positions, 8)
    assert begun == [0, 1, 6, 7], "of those that waited behind the first, one stands for all"


async def test_a_record_of_an_id_that_was_had_is_passed_over_where_the_effect_wants_each_once(positions):
    begun: list[int] = []
    go = asyncio.Event()

    async def act(event: object, found: Record) -> None:
        begun.append(found.offset)
        await go.wait()

    def copy(offset: int, of: int) -> Record:
        return replace(record(of, "a"), offset=offset)

    effect = Effect("tried", TOPIC, events.MAILBOX, MessageRead, act, width=8, truth=False, once=same_work)
    async with running(positions, act, effect=effect) as loop:
        nameless = [
            replace(record(offset, "a"), headers=[("ce_type", b"mailbox.message-read.v1")]) for offset in (3, 4)
        ]
        await loop.take([record(0, "a"), copy(1, 0), record(2, "a"), *nameless, copy(5, 2)])
        await begins(begun, 4)
        assert loop._shares[TOPIC, 0].position == 0, "nothing has ended, and no copy stands for it"
        go.set()
        await reaches(positions, 6)
    assert begun == [0, 2, 3, 4]
    async with running(positions, act, effect=effect) as loop:
        await loop.take([copy(6, 0), copy(7, 0)])
        await reaches(positions, 8)
    assert begun[4:] == [6], "whether somebody else has ended it isn't known"


class Counting(Effector):
    """An effector that counts what is delivered to it."""

    delivered = 0

    async def take(self, records: Sequence[Record]) -> None:
        self.delivered += len(records)
        await super().take(records)


async def test_a_consumer_that_begins_at_the_earliest_again_is_sent_on_at_once(servers, database, topic_prefix):
    """As aiokafka does where a leader that has fallen behind does not know the offset that is asked for."""

    async def act(event: MessageRead, found: Record) -> None:
        pass

    async with mail_log(servers, database, topic_prefix) as mail:
        positions = EffectPositions(mail.pool)
        loop = Counting(Effect("tried", TOPIC, events.MAILBOX, MessageRead, act), positions)
        subscriptions = Subscriptions(mail.kafka, prefix=mail.prefix)
        loop.subscription = subscriptions.subscribe([TOPIC], group="tried", consumes=loop, max_records=100)
        await mail.append(list(lives(300)))
        await subscriptions.start()
        try:
            await reaches(positions, await mail.end())
            before = loop.delivered
            assert before > 2000
            assert loop.subscription.seek(TOPIC, 0, 0)
            await mail.append([MessageRead("msg_more", "mbx_1", "acc_1")])
            await reaches(positions, await mail.end())
            assert loop.delivered - before < 500
        finally:
            await loop.stop()
            await subscriptions.stop()
