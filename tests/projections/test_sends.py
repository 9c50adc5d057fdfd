"""The table of sends: what events make of it."""

from typing import Any

import pytest

from domain.send_commands import DoubtAttempt, NoteTransmission
from projections.sends import PROJECTION
from tests.support.send_words import SEND, SMTP, USER, claim, report, request
from tests.support.spec import SEND as RULES
from tests.support.user_history import as_folded, decided

#: By SMTP, with little time for the attempt, of which nothing is heard in time.
LOST = [request(SMTP), claim(seconds=1.5), NoteTransmission(SEND, USER, 1), DoubtAttempt(SEND, USER, 1)]


@pytest.mark.parametrize(
    ("outcome", "code", "status", "attempt"),
    [
        ("deferred", "temporarily_refused", "deferred", "deferred"),
        ("refused", "message_refused", "failed", "failed"),
        ("in_doubt", "timed_out", "uncertain", "in_doubt"),
    ],
)
async def test_an_answer_that_is_heard_late_ends_the_doubt(
    postgres: Any, outcome: Any, code: str, status: str, attempt: str
) -> None:
    commands = [*LOST, report(outcome, code)]
    happened, _ = decided(RULES, [(USER, command) for command in commands])
    await PROJECTION.fold(postgres, seen := as_folded(happened))
    row = await postgres.fetchrow("select status, code, next_at, due, due_kind, ended_at from sends")
    waits = status == "deferred"
    assert row["status"] == status
    assert row["code"] == ("worker_lost" if status == "uncertain" else code)
    assert (row["next_at"] is not None, row["due"] is not None, row["due_kind"] == "start") == (waits, waits, waits)
    assert row["ended_at"] == (None if waits else seen[-1].at)
    tried = await postgres.fetchrow("select outcome, code, counted from send_attempts")
    assert tuple(tried) == (attempt, row["code"], None if status == "uncertain" else True)
