"""Attempts of which nobody knows whether the mail went out: they are left by proof alone."""

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from domain.delivery import InDoubtCode
from domain.fields import Sealed
from domain.send_commands import CancelSend, DoubtAttempt, RedriveSend
from domain.send_events import AttemptRefused, SendRedriven
from tests.support import spec
from tests.support.send_words import (
    ABOUT,
    BY_SMTP,
    DEADLINE,
    DRAFTED,
    OUTLOOK,
    OWNER,
    QUEUED,
    SECONDS,
    SEND,
    SENDING,
    SMTP,
    STATES,
    TRANSMITTED,
    USER,
    claim,
    dead_lettered,
    deferred,
    dispatched,
    failed,
    in_doubt,
    reconciled,
    report,
    sent,
    start,
    started,
    tried,
    uncertain,
)
from tests.support.spec import START, at

DOUBT = DoubtAttempt(SEND, USER, 1)
RUNNING = [*SENDING, DRAFTED]
SMTP_RUNNING = [*BY_SMTP, TRANSMITTED]


def given(*events):
    return spec.given(*events, rules=spec.SEND, key=USER)


def of(when):
    return when.known["send", SEND]


@pytest.mark.parametrize("code", get_args(InDoubtCode))
def test_what_may_have_gone_out_is_looked_into_from_the_deadline_on(code):
    done = given(*RUNNING).when(report("in_doubt", code, said=Sealed("sealed")), now=at(seconds=31))
    done.then(replace(in_doubt(code), said=Sealed("sealed")))
    assert (of(done).state, of(done).due) == ("in_doubt", DEADLINE + timedelta(seconds=3530))
    late = at(seconds=61)
    given(*RUNNING).when(report("in_doubt", code), now=late).then(in_doubt(code, look_at=late))


def test_a_worker_of_which_nothing_is_heard_may_have_sent_what_is_on_record():
    given(*RUNNING).when(DOUBT, now=DEADLINE - timedelta(milliseconds=1)).then_nothing()
    given(*RUNNING).when(DOUBT, now=DEADLINE).then(in_doubt("worker_lost"))
    given(*RUNNING).when(replace(DOUBT, attempt=2), now=DEADLINE).then_nothing()
    by_draft = [*STATES["deferred"][:3], DRAFTED, deferred(), started(2, now=at(hours=1), draft="d_1")]
    later = at(hours=1, seconds=SECONDS)
    given(*by_draft).when(replace(DOUBT, attempt=2), now=later).then(in_doubt("worker_lost", 2, look_at=later))


def test_one_that_had_nothing_on_record_has_sent_nothing():
    given(*SENDING).when(DOUBT, now=DEADLINE).then(deferred("worker_lost", now=DEADLINE))
    given(*BY_SMTP).when(DOUBT, now=DEADLINE).then(deferred("worker_lost", now=DEADLINE, by=SMTP))
    fifth = [*QUEUED, *tried(4), started(5)]
    given(*fifth).when(replace(DOUBT, attempt=5), now=DEADLINE).then(*dead_lettered("worker_lost"))
    # What an earlier attempt transmitted, and was refused for sure, is none of this one's.
    second = [*SMTP_RUNNING, deferred(by=SMTP), started(2, SMTP)]
    (event,) = given(*second).when(replace(DOUBT, attempt=2), now=DEADLINE).events
    assert (event.code, event.attempt) == ("worker_lost", 2)


def test_smtp_can_not_be_asked():
    for command, now, code in (
        (report("in_doubt", "connection_lost"), START, "connection_lost"),
        (DOUBT, DEADLINE, "worker_lost"),
    ):
        done = given(*SMTP_RUNNING).when(command, now=now)
        done.then(in_doubt(code, by=SMTP, draft=None), uncertain(code))
        assert of(done).state == "uncertain"


def test_the_proven_absent_is_tried_again_and_counts():
    done = given(*STATES["in_doubt"]).when(reconciled("proven_absent"), now=DEADLINE)
    done.then(deferred("proven_absent", now=DEADLINE))
    fifth = [*QUEUED, *tried(4), started(5, draft="d_1"), in_doubt(attempt=5)]
    given(*fifth).when(reconciled("proven_absent", 5)).then(*dead_lettered("proven_absent"))


def test_what_the_provider_has_is_sent():
    told = reconciled("proven_sent", provider_message_id="p_1", thread_id="t_1")
    for state in ("in_doubt", "uncertain"):
        given(*STATES[state]).when(told, now=DEADLINE).then(
            *sent(proven_by="look", provider_message_id="p_1", thread_id="t_1")
        )


def test_what_can_not_be_proven_is_uncertain_and_is_not_tried_again():
    done = given(*STATES["in_doubt"]).when(reconciled("unknown"), now=at(minutes=50)).then(uncertain())
    assert (of(done).state, of(done).due) == ("uncertain", None)
    until = in_doubt().until
    given(*STATES["in_doubt"]).when(DOUBT, now=until - timedelta(milliseconds=1)).then_nothing()
    given(*STATES["in_doubt"]).when(DOUBT, now=until).then(uncertain())
    for command in (claim(), start(), DOUBT):
        found = done.when(command, now=at(days=400), key=USER).events
        assert found in ([], [AttemptRefused(*ABOUT, "ended")])


@pytest.mark.parametrize("found", ["proven_absent", "unknown"])
def test_a_look_at_an_attempt_that_is_in_doubt_no_more_proves_nothing(found):
    for state, events in STATES.items():
        if state != "in_doubt":
            given(*events).when(reconciled(found), now=at(hours=1)).then_nothing()
    given(*STATES["in_doubt"]).when(reconciled(found, attempt=2)).then_nothing()
    again = [*STATES["in_doubt"], deferred("proven_absent"), started(2, draft="d_1"), in_doubt(attempt=2)]
    given(*again).when(reconciled(found)).then_nothing()
    redriven = [*STATES["uncertain"], dispatched()]
    given(*redriven).when(reconciled(found)).then_nothing()


def test_a_worker_that_knows_after_all_ends_the_doubt():
    """It was given up by its timer; what it says of its own attempt is proof."""
    doubtful = STATES["in_doubt"]
    given(*doubtful).when(report("deferred", "server_error")).then(deferred("server_error"))
    given(*doubtful).when(report("refused", "message_refused")).then(*failed())
    given(*doubtful).when(report("in_doubt", "server_error")).then_nothing()


# ── an answer that comes too late ─────────────────────────────────────────────────────────────────────────────────────

LATE = at(minutes=10)
REDRIVEN = SendRedriven(*ABOUT, "caller")
DEFINITE = [report("deferred", "temporarily_refused"), report("refused", "message_refused")]
#: By SMTP: its worker was not heard in time.
GIVEN_UP = [*SMTP_RUNNING, in_doubt("worker_lost", by=SMTP, draft=None), uncertain("worker_lost")]


def test_a_definite_answer_that_is_heard_after_the_deadline_ends_the_doubt():
    """The server has said no to the dot; the log was away, and the timer came first."""
    lost = given(*SMTP_RUNNING).when(DOUBT, now=DEADLINE)
    lost.then(in_doubt("worker_lost", by=SMTP, draft=None), uncertain("worker_lost"))
    answered = lost.when(report("deferred", "temporarily_refused"), now=LATE, key=USER)
    answered.then(deferred("temporarily_refused", by=SMTP, now=LATE))
    assert (of(answered).state, of(answered).uncertain, of(answered).transmitted) == ("deferred", False, False)
    # Nothing of it may be anywhere: by its second attempt it can fail, and go out by another connection.
    again = answered.when(claim(), now=at(hours=1), key=USER).then(started(2, SMTP, at(hours=1)))
    again = again.when(report("refused", "message_refused", 2), now=at(hours=1), key=USER).then(*failed(attempt=2))
    again.when(RedriveSend(SEND, USER, OWNER, "caller", [OUTLOOK]), now=LATE, key=USER).then(
        REDRIVEN, dispatched(OUTLOOK, now=LATE)
    )
    lost = given(*SMTP_RUNNING).when(DOUBT, now=DEADLINE)
    lost.when(report("refused", "message_refused"), now=LATE, key=USER).then(*failed())
    assert (of(lost).state, of(lost).transmitted) == ("failed", False)


@pytest.mark.parametrize("state", ["uncertain", "by_smtp"])
def test_it_is_heard_once_and_of_its_own_attempt_alone(state):
    events = GIVEN_UP if state == "by_smtp" else STATES["uncertain"]
    for told in DEFINITE:
        given(*events).when(replace(told, attempt=2), now=LATE).then_nothing()
        done = given(*events).when(told, now=LATE)
        assert done.events
        done.when(told, now=LATE, key=USER).then_nothing()
        done.when(DOUBT, now=LATE, key=USER).then_nothing()
    given(*events).when(report("in_doubt", "timed_out"), now=LATE).then_nothing()


def test_the_answer_to_the_last_of_five_attempts_ends_it_as_a_dead_letter():
    fifth = [*QUEUED, *tried(4), started(5, draft="d_1"), in_doubt(attempt=5), uncertain(attempt=5)]
    given(*fifth).when(report("deferred", "unreachable", 5), now=LATE).then(*dead_lettered())


@pytest.mark.parametrize("told", DEFINITE, ids=lambda told: told.outcome)
def test_an_earlier_attempt_that_may_have_sent_it_stays_one_that_may(told):
    twice = [*GIVEN_UP, REDRIVEN, dispatched(SMTP), started(2, SMTP), replace(TRANSMITTED, attempt=2)]
    doubted = [*twice, in_doubt("timed_out", 2, by=SMTP, draft=None), uncertain("timed_out", 2)]
    for attempt in (1, 2):
        given(*doubted).when(replace(told, attempt=attempt), now=LATE).then_nothing()
    # What a doubt was before, and was settled, is none any more.
    settled = [*SMTP_RUNNING, in_doubt(by=SMTP, draft=None), uncertain(), deferred(by=SMTP), started(2, SMTP)]
    again = [*settled, replace(TRANSMITTED, attempt=2), in_doubt(attempt=2, by=SMTP, draft=None), uncertain(attempt=2)]
    assert given(*again).when(replace(told, attempt=2), now=LATE).events


@pytest.mark.parametrize("told", DEFINITE, ids=lambda told: told.outcome)
def test_what_somebody_ended_since_is_not_tried_again_by_itself(told):
    """It was asked for once more, and cancelled: that it may have gone out is all that a late answer could change."""
    done = (
        given(*GIVEN_UP, REDRIVEN, dispatched(SMTP)).when(CancelSend(SEND, USER, OWNER)).then(uncertain("worker_lost"))
    )
    done.when(told, now=LATE, key=USER).then_nothing()
