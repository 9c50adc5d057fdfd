"""The table of attachments: what events make of it, in whatever batches, and again from the log."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.account import CreateAccount
from domain.attachments import Attachment, DeleteAttachment, StoreAttachment, UseAttachment
from domain.fields import Sealed
from domain.users import DeleteUser
from gateways.local_servers import Servers
from projections import attachments
from projections.attachments import LONGEST_GRACE, PROJECTION
from projections.migrate import migrate
from projections.replay import Rebuild
from schemas import events
from schemas.topics import ACCOUNT_EVENTS
from tests.support.spec import ACCOUNT
from tests.support.user_history import START, as_folded, create_user, decided, projecting, rows_of, user_log
from tests.support.waiting import until

ENDS = START + timedelta(days=10_000)
USER = create_user("usr_1", "ada@a")


def store(number: int, *, user: str = "usr_1", ends: Any = ENDS) -> StoreAttachment:
    name = f"att_{number}"
    return StoreAttachment(
        "acc_1", user, name, f"{user}/{name}.bin", number, "ab" * 32, "text/plain", Sealed(f"sealed:{name}"), ends
    )


def use(number: int) -> UseAttachment:
    return UseAttachment("acc_1", "usr_1", f"att_{number}", "snd_1")


def delete(number: int, by: Any = "caller") -> DeleteAttachment:
    return DeleteAttachment("acc_1", "usr_1", f"att_{number}", by)


def delete_user() -> DeleteUser:
    return DeleteUser("acc_1", "usr_1", "caller", USER.email_digest, USER.external_id_digest)


def history(*commands: Any) -> list[tuple[str, Any]]:
    return decided(ACCOUNT, [("acc_1", command) for command in (CreateAccount("acc_1", "pro"), USER, *commands)])[0]


async def test_rows_tell_what_became_of_each(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    stored = [store(number) for number in range(1, 5)]
    happened = history(*stored, use(2), use(3), delete(1), delete(3), delete(4, "erasure"))
    seen = as_folded(happened)
    first, second, third, fourth = await rows_of(connection, PROJECTION, seen, ())
    digest, deleted = "ab" * 32, [each.at for each in seen if type(each.event).__name__ == "AttachmentDeleted"]
    rest = (1, digest, "text/plain", "sealed:att_1", seen[2].at, None, None, deleted[0], 0, seen[2].position)
    assert first == ("att_1", "usr_1", "acc_1", "usr_1/att_1.bin", *rest)
    assert second[7:] == ("sealed:att_2", seen[3].at, None, None, None, 0, seen[3].position)
    assert third[7] == "sealed:att_3", "a send has it, and shows its name"
    assert (fourth[7], fourth[11]) == (None, deleted[2])
    assert third[11] == deleted[1]
    (alone,) = await rows_of(connection, PROJECTION, as_folded(history(store(1))), ())
    assert alone[9:11] == (ENDS, ENDS + LONGEST_GRACE)
    erased = await rows_of(connection, PROJECTION, as_folded([*happened, *history(delete_user())[2:]]), ())
    assert [row[7] for row in erased] == [None] * 4
    assert None not in {row[11] for row in erased}
    await connection.close()


@st.composite
def commands(draw: st.DrawFn) -> list[Any]:
    """Any order of them; an id is never used again, and nor is a user's."""
    number, user_ends = st.integers(1, 5), draw(st.booleans())
    steps = draw(
        st.lists(st.tuples(st.sampled_from(["store", "use", "delete", "unused", "erasure"]), number), max_size=40)
    )
    stored: set[int] = set()
    found: list[Any] = []
    for said, which in steps:
        if said == "store" and which not in stored:
            stored.add(which)
            found.append(store(which, ends=draw(st.sampled_from([START, ENDS]))))
        elif said == "use":
            found.append(use(which))
        elif said != "store":
            found.append(delete(which, "caller" if said == "delete" else said))
    return [*found, delete_user(), *found[:3]] if user_ends else found


def test_the_rows_do_not_depend_on_how_events_are_cut_into_batches(database: str) -> None:
    with asyncio.Runner() as runner:
        runner.run(migrate(database))
        connection = runner.run(asyncpg.connect(database))

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(said=commands(), cuts=st.sets(st.integers(1, 40)))
        def equal(said: list[Any], cuts: set[int]) -> None:
            happened, fold = decided(
                ACCOUNT, [("acc_1", each) for each in (CreateAccount("acc_1", "pro"), USER, *said)]
            )
            seen = as_folded(happened)
            inside = {cut for cut in cuts if cut < len(seen)}
            at_once, one_by_one, cut_up = [
                runner.run(rows_of(connection, PROJECTION, seen, ends)) for ends in ((), range(len(seen)), inside)
            ]
            assert at_once == one_by_one == cut_up
            there = {row[0] for row in at_once if row[11] is None}
            known = {
                key[1].partition("/")[2]: found
                for key, found in fold.documents.items()
                if isinstance(found, Attachment)
            }
            assert there == known.keys()
            assert {row[0] for row in at_once if row[11] is None and row[10] is None} == {
                name for name, found in known.items() if found.used
            }

        equal()
        runner.run(connection.close())


async def test_a_rebuild_gives_equal_rows_and_questions_are_answered_by_them(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with user_log(servers, database, topic_prefix) as told, projecting(told, ACCOUNT_EVENTS.name) as running:
        said = [store(number) for number in range(1, 8)]
        await told.append(
            ACCOUNT_EVENTS.name,
            history(
                *said,
                store(8, ends=START),
                store(9),
                use(1),
                use(2),
                delete(2),
                delete(3),
                delete(9, "erasure"),
            ),
        )
        await until(lambda: told.at_end("attachments", ACCOUNT_EVENTS.name))
        assert running.stopped == {}
        rows, pool = await told.rows("attachments"), told.pool
        assert len(rows) == 9
        found = await attachments.of_account(pool, "acc_1", limit=3)
        rest = await attachments.of_account(pool, "acc_1", user="usr_1", limit=9, before=found[-1].position)
        assert [row.attachment for row in (*found, *rest)] == ["att_7", "att_6", "att_5", "att_4", "att_1"]
        assert await attachments.of_account(pool, "acc_1", user="usr_2", limit=9) == []
        asked = ["att_4", "att_1", "att_4", "att_2", "att_3", "att_8", "att_x"]
        assert [row.attachment for row in await attachments.of_user(pool, "acc_1", "usr_1", asked)] == [
            "att_4",
            "att_1",
        ]
        assert await attachments.of_user(pool, "acc_2", "usr_1", asked) == []
        assert await attachments.of_user(pool, "acc_1", "usr_2", asked) == []
        assert await attachments.by_id(pool, "acc_1", "att_8") is None, "its time is over, said or not"
        assert await attachments.by_id(pool, "acc_2", "att_1") is None
        for deleted in ("att_2", "att_3"):
            kept = await attachments.kept(pool, deleted)
            assert kept is not None
            assert kept.name == f"sealed:{deleted}"
            assert await attachments.by_id(pool, "acc_1", deleted) is None
        assert await attachments.kept(pool, "att_9") is None
        outcome = await Rebuild(PROJECTION, events.ACCOUNT, told.log, told.database).run()
        assert (outcome.count, outcome.switched) == (0, True)
        assert await told.rows("attachments") == rows


@pytest.mark.parametrize("seconds", [-5, 0, 10, 36_000, 86_400 * 7])
async def test_the_grace_is_a_tenth_of_its_time_and_an_hour_at_most(database: str, seconds: int) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    stored = START + timedelta(seconds=3)
    ends = stored + timedelta(seconds=seconds)
    (row,) = await rows_of(connection, PROJECTION, as_folded(history(store(1, ends=ends))), ())
    assert row[8] == stored
    assert row[10] - row[9] == timedelta(seconds=min(3600, max(seconds, 0) / 10))
    await connection.close()
