"""One attempt at a send: when it is granted, what is on record before the mail may leave, and what comes of it."""

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from domain.delivery import DeferredCode, RecipientRefused, RefusedCode
from domain.fields import Sealed
from domain.send_commands import NoteDraft, NoteTransmission
from domain.send_events import (
    AttemptFailed,
    AttemptRefused,
    DraftRecorded,
    SendFailed,
    TransmissionStarted,
)
from tests.support import spec
from tests.support.send_words import (
    ABOUT,
    BY_SMTP,
    DEADLINE,
    DRAFTED,
    ENDED,
    GMAIL,
    OUTLOOK,
    QUEUED,
    SEND,
    SENDING,
    STATES,
    USER,
    claim,
    dead_lettered,
    deferred,
    dispatched,
    in_doubt,
    reconciled,
    report,
    request,
    requested,
    sent,
    started,
    tried,
    waiting,
)
from tests.support.spec import START, at

DRAFT, TRANSMISSION = NoteDraft(SEND, USER, 1, "d_1", "m_1"), NoteTransmission(SEND, USER, 1)
RUNNING = [*SENDING, DRAFTED]
DAY = timedelta(hours=24)


def given(*events):
    return spec.given(*events, rules=spec.SEND, key=USER)


def of(when):
    return when.known["send", SEND]


def refused(reason, attempt=None, next_at=None):
    return AttemptRefused(*ABOUT, reason, attempt, next_at)


# ── granted ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queued_send_may_be_tried_by_one_worker_until_its_deadline():
    done = given(*QUEUED).when(claim(seconds=60.0004)).then(started(deadline=at(seconds=60.001)))
    assert (of(done).state, of(done).attempt, of(done).due) == ("sending", 1, at(seconds=60.001))
    done.when(claim(worker="worker-2"), now=at(seconds=1), key=USER).then(refused("running", 1))
    # Not even when its time is over: before that is in doubt, nobody knows what it did.
    done.when(claim(worker="worker-2"), now=at(hours=1), key=USER).then(refused("running", 1))


@pytest.mark.parametrize(
    ("state", "reason", "attempt"),
    [
        ("scheduled", "not_due", None),
        ("sending", "running", 1),
        ("in_doubt", "in_doubt", 1),
        *[(state, "ended", None) for state in ENDED],
    ],
)
def test_no_attempt_is_granted_while_one_runs_or_is_in_doubt_or_it_has_ended(state, reason, attempt):
    for now in (START, at(days=400)):
        next_at = at(hours=1) if state == "scheduled" else None
        given(*STATES[state]).when(claim(), now=now).then(refused(reason, attempt, next_at))


def test_a_deferred_send_may_be_tried_from_its_time_on():
    before = given(*STATES["deferred"])
    due = deferred().next_at
    before.when(claim(), now=due - timedelta(milliseconds=1)).then(refused("not_due", next_at=due))
    before.when(claim(), now=due).then(started(2, now=due))


def test_a_send_that_nobody_knows_is_not_granted():
    unknown = AttemptRefused(SEND, USER, "", "unknown")
    given().when(claim()).then(unknown)
    for command in (DRAFT, TRANSMISSION):
        given().when(command).then(replace(unknown, attempt=1))


def test_the_fifth_attempt_knows_that_it_is_the_last():
    for before, last in ((3, False), (4, True)):
        now = at(hours=1)
        given(*QUEUED, *tried(before)).when(claim(), now=now).then(started(before + 1, now=now, last=last))
    waits = [started(), waiting(seconds=0), started(2), waiting(attempt=2, seconds=0)]
    given(*QUEUED, *waits, *tried(3)).when(claim(), now=at(hours=1)).then(started(4, now=at(hours=1)))


# ── on record before the mail may leave ───────────────────────────────────────────────────────────────────────────────


def test_a_draft_is_on_record_and_so_are_bytes_that_leave_without_one():
    done = given(*SENDING).when(DRAFT, now=at(seconds=59.999)).then(DraftRecorded(*ABOUT, 1, "d_1", "m_1"))
    assert (of(done).draft, of(done).draft_message, of(done).touched) == ("d_1", "m_1", True)
    done = given(*BY_SMTP).when(TRANSMISSION).then(TransmissionStarted(*ABOUT, 1))
    assert (of(done).transmitted, of(done).touched) == (True, True)


@pytest.mark.parametrize("note", [DRAFT, TRANSMISSION], ids=["draft", "transmission"])
def test_a_worker_whose_time_is_over_may_not_go_on(note):
    given(*SENDING).when(note, now=DEADLINE).then(refused("out_of_time", 1))
    for state, events in STATES.items():
        if state != "sending":
            given(*events).when(note).then(refused("not_running", 1))
    second = [*STATES["deferred"], started(2, now=at(hours=1))]
    given(*second).when(note, now=at(hours=1)).then(refused("not_running", 1))
    given(*SENDING).when(replace(note, attempt=2)).then(refused("not_running", 2))


def test_there_is_one_draft_of_a_mail():
    """A second one could be sent as well."""
    given(*RUNNING).when(replace(DRAFT, draft="d_2")).then(refused("other_draft", 1))
    given(*RUNNING).when(DRAFT).then(DraftRecorded(*ABOUT, 1, "d_1", "m_1"))
    again = [*RUNNING, in_doubt(), deferred("proven_absent"), started(2, draft="d_1")]
    given(*again).when(replace(DRAFT, attempt=2, draft="d_2")).then(refused("other_draft", 2))


def test_what_one_attempt_left_is_what_the_next_one_sends():
    recorded = DraftRecorded(*ABOUT, 1, "d_1", "m_1")
    for events in ([recorded, deferred()], [recorded, in_doubt(), deferred("proven_absent")]):
        done = given(*SENDING, *events).when(claim(), now=at(hours=1))
        done.then(started(2, now=at(hours=1), draft="d_1", draft_message="m_1"))
        assert of(done).touched, "its worker needs no further word on record to send it"


# ── taken ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

PARTLY = [RecipientRefused(1, 550, "5.1.1")]


def test_what_the_provider_takes_is_sent():
    told = report("accepted", provider_message_id="p_1", thread_id="t_1", refused=PARTLY)
    done = given(*RUNNING).when(told).then(*sent(provider_message_id="p_1", thread_id="t_1", refused=PARTLY))
    assert (of(done).state, of(done).due) == ("sent", None)
    done.when(told, now=at(hours=1), key=USER).then_nothing()


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("scheduled", "queued", "cancelled")])
@pytest.mark.parametrize("how", ["answer", "look"])
def test_that_it_was_taken_is_true_whenever_it_is_heard(state, how):
    """Of a worker that was given up, too; and of a look whose draft was shown as unsent by an earlier one."""
    command = report("accepted") if how == "answer" else reconciled("proven_sent")
    done = given(*STATES[state]).when(command, now=at(hours=9))
    done.then(*(() if state == "sent" else sent(proven_by=how)))
    assert of(done).state == "sent"


@pytest.mark.parametrize("how", ["answer", "look"])
def test_even_while_the_next_attempt_runs_or_it_was_cancelled_or_redriven(how):
    command = report("accepted") if how == "answer" else reconciled("proven_sent")
    running = [*STATES["deferred"], started(2)]
    given(*running).when(command).then(*sent(proven_by=how)).when(
        report("deferred", "unreachable", 2), now=START, key=USER
    ).then_nothing()
    given(*STATES["uncertain"], dispatched(now=at(hours=1))).when(command).then(*sent(proven_by=how)).when(
        claim(), now=at(hours=1), key=USER
    ).then(refused("ended"))


@pytest.mark.parametrize("how", ["answer", "look"])
def test_of_an_attempt_that_never_was_nothing_is_believed(how):
    for attempt in (0, -1, 2):
        command = report("accepted", attempt=attempt) if how == "answer" else reconciled("proven_sent", attempt)
        given(*SENDING).when(command).then_nothing()
        given(*QUEUED).when(replace(command, attempt=1)).then_nothing()


# ── not taken ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", get_args(DeferredCode))
def test_what_came_to_nothing_is_tried_again(code):
    said = Sealed("sealed")
    done = given(*RUNNING).when(report("deferred", code, said=said), now=at(seconds=5))
    done.then(deferred(code, now=at(seconds=5), said=said))
    assert (of(done).state, of(done).counted, of(done).waits_for) == ("deferred", 1, code)
    assert at(seconds=65) <= done.events[0].next_at <= at(seconds=77)


@pytest.mark.parametrize("code", get_args(RefusedCode))
def test_what_would_come_to_nothing_again_has_failed(code):
    said = Sealed("sealed")
    told = report("refused", code, said=said, refused=PARTLY)
    gave_up = AttemptFailed(*ABOUT, 1, code, permanent=True, said=said, refused=PARTLY)
    done = given(*RUNNING).when(told).then(gave_up, SendFailed(*ABOUT, code))
    assert (of(done).state, of(done).due) == ("failed", None)


def test_each_wait_is_twice_as_long_and_after_five_attempts_it_is_a_dead_letter():
    done, now, waited = given(*QUEUED).when(claim()), START, []
    for attempt in range(1, 5):
        done = done.when(report("deferred", "server_error", attempt), now=now, key=USER)
        next_at = done.events[0].next_at
        waited.append((next_at - now) / timedelta(minutes=1))
        now = next_at
        done = done.when(claim(), now=now, key=USER)
    assert [1 <= wait / 2**number <= 1.2 for number, wait in enumerate(waited)] == [True] * 4
    done = done.when(report("deferred", "server_error", 5, said=Sealed("sealed")), now=now, key=USER)
    gave_up, letter = dead_lettered("server_error")
    done.then(replace(gave_up, said=Sealed("sealed")), letter)
    assert (of(done).state, of(done).counted) == ("dead_lettered", 5)


def test_a_provider_that_says_when_is_obeyed_and_it_does_not_count():
    told = report("deferred", "rate_limited", retry_after=90, counted=False, scale=0.01)
    done = given(*RUNNING).when(told)
    (event,) = done.events
    assert at(seconds=90) <= event.next_at <= at(seconds=94.5)
    assert (event.counted, event.since, of(done).counted, of(done).waits) == (False, START, 0, 1)


@pytest.mark.parametrize("code", ["server_error", "temporarily_refused"])
@pytest.mark.parametrize("asked", [0, 1])
def test_short_waits_that_a_provider_at_fault_asks_for_use_up_no_attempts(code, asked):
    """It is asked less and less often, up to once in ten minutes, until a day is over."""
    done, now, waited = given(*QUEUED).when(claim()), START, []
    while True:
        told = report("deferred", code, len(waited) + 1, retry_after=asked)
        done = done.when(told, now=now, key=USER)
        if len(done.events) == 2:
            break
        waited.append((done.events[0].next_at - now) / timedelta(seconds=1))
        now = done.events[0].next_at
        done = done.when(claim(), now=now, key=USER)
    done.then(*dead_lettered(code, len(waited) + 1, counted=False))
    assert (now, of(done).counted) == (START + DAY, 0)
    assert all(1 <= wait <= 1.06 for wait in waited[:10])
    assert [2**number <= wait for number, wait in enumerate(waited[10:20])] == [True] * 10
    assert all(wait >= 600 for wait in waited[20:-1])


def test_where_it_asks_for_a_longer_wait_than_ours_that_holds():
    for scale in (1, 0.01):
        (event,) = given(*RUNNING).when(report("deferred", "server_error", retry_after=900, scale=scale)).events
        assert at(seconds=900) <= event.next_at <= at(seconds=945)
        assert (event.counted, event.since) == (False, START)


def test_a_wait_beyond_an_hour_is_a_timers_alone():
    for seconds, alone in ((3400, False), (3601, True)):
        told = report("deferred", "daily_quota", retry_after=seconds, counted=False)
        (event,) = given(*RUNNING).when(told).events
        assert (event.overdue_at == event.next_at) is alone
        assert alone or event.overdue_at == event.next_at + timedelta(minutes=2)


@pytest.mark.parametrize("code", ["rate_limited", "daily_quota", "reauth_required", "out_of_time"])
@pytest.mark.parametrize("retry_after", [None, 7_000, 10**9])
def test_waits_that_do_not_count_end_after_a_day(code, retry_after):
    done, now, attempt = given(*QUEUED).when(claim()), START, 1
    while True:
        told = report("deferred", code, attempt, counted=False, retry_after=retry_after)
        done = done.when(told, now=now, key=USER)
        if len(done.events) == 2:
            break
        (event,) = done.events
        assert now < event.next_at <= START + DAY
        assert event.since == START
        now, attempt = event.next_at, attempt + 1
        done = done.when(claim(), now=now, key=USER)
    assert now == START + DAY, "the last attempt is made when the day is over"
    done.then(*dead_lettered(code, attempt, counted=False))
    assert of(done).counted == 0


def test_an_attempt_that_counts_begins_the_day_anew():
    events = [*SENDING, waiting(seconds=60), started(2), deferred(attempt=2), started(3, now=at(hours=30))]
    told = report("deferred", "rate_limited", 3, counted=False)
    (event,) = given(*events).when(told, now=at(hours=30)).events
    assert event.since == at(hours=30)


def test_a_report_of_an_older_attempt_or_a_repeated_one_changes_nothing():
    older = [*STATES["deferred"], started(2)]
    for told in (
        report("deferred", "unreachable"),
        report("refused", "message_refused"),
        report("in_doubt", "timed_out"),
    ):
        given(*older).when(told).then_nothing()
        for state in ("queued", "deferred", *ENDED):
            if state != "uncertain" or told.outcome == "in_doubt":
                given(*STATES[state]).when(told).then_nothing()
        done = given(*SENDING).when(told)
        assert done.events
        done.when(told, now=at(hours=1), key=USER).then_nothing()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("deferred", "recipients_refused"),
        ("deferred", None),
        ("refused", "unreachable"),
        ("refused", None),
        ("in_doubt", "message_refused"),
        ("in_doubt", None),
    ],
)
def test_a_report_that_contradicts_itself_is_no_event_that_nobody_could_read(outcome, code):
    """The loop makes a CommandFailed of it; the attempt is ended by its timer."""
    with pytest.raises(ValueError, match=f"{code} is no code of {outcome}"):
        given(*SENDING).when(report(outcome, code))


def test_an_attempt_goes_by_the_connection_it_was_dispatched_to():
    events = [requested(request(OUTLOOK)), dispatched(OUTLOOK)]
    done = given(*events).when(claim()).then(started(by=OUTLOOK))
    done.when(report("deferred", "unreachable"), now=START, key=USER).then(deferred(by=OUTLOOK))
    assert GMAIL.connection != OUTLOOK.connection
